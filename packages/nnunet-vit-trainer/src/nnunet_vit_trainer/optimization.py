"""How the weights move: the optimizer and one training step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# A patch embedding that was adapted to other input channels goes on training under LoRA and
# freezing. It is still pretrained, so it gets a rate for pretrained weights: on Dataset102 the
# validation loss after the first 50 steps was 0.77 at the head's rate and 0.60 at this one.
PATCH_EMBEDDING_LR_SCALE = 0.01


def build_optimizer(
    network: nn.Module, *, initial_lr: float, weight_decay: float, num_epochs: int
) -> tuple[torch.optim.AdamW, "PolySchedule"]:
    """Make AdamW over what trains, and nnU-Net's polynomial decay per epoch.

    Args:
        network: a `ViTSegmentationModel`, perhaps wrapped; what requires a gradient is optimized.
        initial_lr: learning rate at the start; a patch embedding that alone of the backbone's
            own weights trains gets `PATCH_EMBEDDING_LR_SCALE` of it.
        weight_decay: decoupled weight decay.
        num_epochs: the epochs after which the rate is 0.
    """
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    backbone_trains = any(".blocks." in n and ".lora_" not in n for n in trainable)
    careful = [] if backbone_trains else [p for n, p in trainable.items() if ".patch_embed." in n]
    others = [p for p in trainable.values() if all(p is not other for other in careful)]
    groups = [{"params": others, "lr": initial_lr}]
    if careful:
        groups.append({"params": careful, "lr": initial_lr * PATCH_EMBEDDING_LR_SCALE})
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    return optimizer, PolySchedule(optimizer, num_epochs)


class PolySchedule:
    """nnU-Net's polynomial decay, each parameter group from its own rate.

    nnU-Net's `PolyLRScheduler` writes one rate into every group. A rate follows from the epoch
    alone, so resuming needs no state.

    Args:
        optimizer: its groups' rates are those of epoch 0.
        num_epochs: the epochs after which the rates are 0.
        exponent: of the decay.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, num_epochs: int, exponent: float = 0.9
    ) -> None:
        self.optimizer = optimizer
        self.num_epochs = num_epochs
        self.exponent = exponent
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def step(self, epoch: int) -> None:
        """Set every group's rate for an epoch."""
        factor = (1 - epoch / self.num_epochs) ** self.exponent
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


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
