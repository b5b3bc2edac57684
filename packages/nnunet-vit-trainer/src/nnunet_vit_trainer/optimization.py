"""How the weights move: the optimizer and one training step."""

from collections.abc import Callable
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn


def build_optimizer(
    network: nn.Module, *, initial_lr: float, weight_decay: float, num_epochs: int
) -> tuple[torch.optim.AdamW, PolyLRScheduler]:
    """Make AdamW over what trains, and nnU-Net's polynomial decay per epoch.

    Args:
        network: its parameters that require a gradient are optimized.
        initial_lr: learning rate at the start.
        weight_decay: decoupled weight decay.
        num_epochs: the epochs after which the rate is 0.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=initial_lr, weight_decay=weight_decay)
    return optimizer, PolyLRScheduler(optimizer, initial_lr, num_epochs)


def training_step(
    network: nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    image: torch.Tensor,
    target: torch.Tensor | list[torch.Tensor],
    *,
    gradient_clip: float,
) -> float:
    """Take one step and return the loss before it.

    On CUDA the network runs under bfloat16 autocast: DINOv3 is reported unstable in float16, and
    bfloat16 needs no loss scaling. Elsewhere it runs in float32, as nnU-Net does.

    Args:
        network: in training mode.
        loss: of output and target.
        optimizer: of the network's trainable parameters.
        image: (B, C, H, W) on the network's device.
        target: (B, 1 or regions, H, W), or one per output.
        gradient_clip: the gradient's norm is cut to this.
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
        value = loss(network(image), target)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
    optimizer.step()
    return value.item()
