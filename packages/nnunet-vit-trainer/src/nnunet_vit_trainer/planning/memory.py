"""What a training step of a config takes: counted for any tile and batch, and a line through it."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.launch.backbones import asked_backbone
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.plans.architecture import architecture_of
from nnunet_vit_trainer.plans.derive import resolved_recipe
from nnunet_vit_trainer.training.averaging import WeightAverage
from nnunet_vit_trainer.training.optimization import build_optimizer
from nnunet_vit_trainer.training.shortage.counting import count_peak
from nnunet_vit_trainer.training.step import training_step
from nnunet_vit_trainer.training.trainer import OPTIMIZER_KEYS
from vit_backbone.heads.recompute import set_recompute

from .tiles import Size

GIB = 2**30
_NOT_COUNTED = 1.2
"""A process grew by so much more than what is counted (docs/choosing.md)."""

_CUDA = 1.5 * GIB
"""What CUDA itself takes."""

_ROWS = (32, 64)
"""Sides, in patches, of the two tiles that the line is drawn through; sizes cost nothing here."""

_FEWEST = 2
"""Tiles of a batch, as in nnU-Net."""


def countable(memory: float) -> float:
    """Return the bytes that a counted step may take of a device's memory.

    Args:
        memory: of the device, in bytes.
    """
    return max(0.0, (memory - _CUDA) / _NOT_COUNTED)


class Line(NamedTuple):
    """What a step takes: activations grow with the pixels of a batch, the rest is fixed.

    Attributes:
        fixed: in bytes.
        per_pixel: bytes for each pixel of a batch.
    """

    fixed: float
    per_pixel: float

    def pixels_in(self, memory: float) -> float:
        """Return the pixels of a batch that some bytes are enough for."""
        return max(0.0, (memory - self.fixed) / self.per_pixel)


def line_of(count: Callable[[int, Size], int], patch: Size) -> Line:
    """Draw the line through two counts.

    Args:
        count: the bytes of a step, for a batch of tiles.
        patch: the backbone's.
    """
    tiles = [(rows * patch[0], rows * patch[1]) for rows in _ROWS]
    few, many = (count(_FEWEST, tile) for tile in tiles)
    pixels = [_FEWEST * height * width for height, width in tiles]
    per_pixel = (many - few) / (pixels[1] - pixels[0])
    return Line(few - per_pixel * pixels[0], per_pixel)


def build(config: ViTnnUNetConfig, channels: int, outputs: int) -> nn.Module:
    """Build a config's network without memory, as it trains.

    Args:
        config: checked.
        channels: of the images.
        outputs: classes or regions.
    """
    backbone, _ = asked_backbone(config.model, None)
    arguments = architecture_of(config, backbone["name"])["arch_kwargs"]
    with torch.device("meta"):
        network = build_network(channels, outputs, **arguments)
    network.backbone.set_grad_checkpointing(config.train.grad_checkpointing)
    if config.train.grad_checkpointing_head:
        set_recompute(network.head)
    return network.train()


def counter_of(
    network: nn.Module, config: ViTnnUNetConfig, labels: LabelManager, channels: int
) -> Callable[[int, Size], int]:
    """Return what counts the bytes of a training step, as the trainer takes it on a GPU.

    Deep supervision and what torch.compile changes are not counted.

    Args:
        network: of `build`.
        config: its own.
        labels: of the data set, without the ignore label, whose loss asks what a pixel holds.
        channels: of the images.
    """
    recipe = resolved_recipe(config, pretrained=True)
    dtype = None if config.train.amp_dtype == "float32" else torch.bfloat16
    loss = _loss_of(labels)
    # The gradients of a first batch lie there while the next one is computed.
    batches = min(config.train.accumulate_steps, 2)

    def count(batch: int, tile: Size) -> int:
        def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
            average = WeightAverage(network, config.train.ema) if config.train.ema else None
            image = torch.empty(batch, channels, *tile)
            maps = labels.num_segmentation_heads if labels.has_regions else 1
            target = torch.zeros(batch, maps, *tile)
            return average, training_step(
                network,
                loss,
                optimizer,
                [(image, target)] * batches,
                gradient_clip=config.train.gradient_clip,
                amp_dtype=dtype,
            )

        rates = {key: recipe[key] for key in OPTIMIZER_KEYS}
        return count_peak(network, step, partial(build_optimizer, **rates))

    return count


def _loss_of(labels: LabelManager) -> nn.Module:
    """Build the loss as nnU-Net's trainer does, which asks nothing else of itself for it."""
    asked: Any = SimpleNamespace(
        label_manager=labels,
        configuration_manager=SimpleNamespace(batch_dice=True),
        is_ddp=False,
        enable_deep_supervision=False,
        _do_i_compile=lambda: False,
    )
    return nnUNetTrainer._build_loss(asked)
