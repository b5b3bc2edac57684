"""What a checkpoint holds, and how it is written."""

import os
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside of DDP and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def checkpoint_of(trainer: nnUNetTrainer) -> dict[str, Any]:
    """Collect the keys that nnU-Net 2.8 reads back, in its own form."""
    return {
        "network_weights": unwrap(trainer.network).state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": nnUNetTrainer.__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
    }


def write_atomically(content: Any, file: Path) -> None:
    """Save so that a kill during the write leaves the file that was there before."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    torch.save(content, unfinished)
    unfinished.replace(file)
