"""What a checkpoint holds, and how it is written."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from .plans import PLANS_KEY


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside of DDP and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def checkpoint_of(trainer: nnUNetTrainer) -> dict[str, Any]:
    """Collect the keys that nnU-Net 2.8 reads back, in its own form, and ours under ``vit``.

    With weight averaging the network's weights are the average, which is what predicts; the
    weights that train lie under ``vit`` then.
    """
    weights = unwrap(trainer.network).state_dict()
    average = trainer.average
    return {
        "network_weights": weights if average is None else {**weights, **average.average},
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": trainer.grad_scaler and trainer.grad_scaler.state_dict(),
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": nnUNetTrainer.__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        PLANS_KEY: {
            "random_states": random_states(),
            "average": average and average.state(),
            "skipped_steps": trainer.watch.skipped,
        },
    }


def random_states() -> dict[str, Any]:
    """Return the states of this process's random number generators."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Go on with the random numbers of a checkpoint.

    With nnU-Net's data augmentation in this process (nnUNet_n_proc_DA=0) on a CPU, a resumed run
    then equals one that was not stopped; other worker processes have random states of their own.

    Args:
        states: see `random_states`.
    """
    torch.set_rng_state(states["torch"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def write_atomically(content: Any, file: Path) -> None:
    """Save so that a kill during the write leaves the file that was there before."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    torch.save(content, unfinished)
    unfinished.replace(file)
