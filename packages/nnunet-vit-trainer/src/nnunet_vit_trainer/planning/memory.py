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
from nnunet_vit_trainer.network import build_network, without_memory
from nnunet_vit_trainer.plans.architecture import architecture_of
from nnunet_vit_trainer.plans.derive import resolved_recipe
from nnunet_vit_trainer.training.optimization import OPTIMIZER_KEYS, build_optimizer
from nnunet_vit_trainer.training.shortage.counting import count_peak
from nnunet_vit_trainer.training.step import training_step
from vit_backbone import UserError, ViTSegmentationModel, reason_of
from vit_backbone.heads.recompute import set_recompute

from .tiles import Size

GIB = 2**30
_NOT_COUNTED = 1.25
"""So much more than what is counted a step took at most, on a GPU (docs/gpu.md)."""

CUDA = 1.5 * GIB
"""What CUDA itself takes, in bytes."""

_ROWS = (32, 64)
"""Sides, in patches, of the two tiles that the line is drawn through; sizes cost nothing here."""

_FEWEST = 2
"""Tiles of a batch, as in nnU-Net."""


def countable(memory: float) -> float:
    """Return the bytes that a counted step may take of a device's memory.

    Args:
        memory: of the device, in bytes.
    """
    return max(0.0, (memory - CUDA) / _NOT_COUNTED)


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
    return Line(max(0.0, few - per_pixel * pixels[0]), per_pixel)


def build(config: ViTnnUNetConfig, channels: int, outputs: int) -> ViTSegmentationModel:
    """Build a config's network without memory, as it trains.

    Args:
        config: checked.
        channels: of the images.
        outputs: classes or regions.

    Raises:
        UserError: options that the backbone or the head refuses, or sizes that no tensor has.
    """
    backbone, _ = asked_backbone(config.model, None)
    arguments = architecture_of(config, backbone["name"])["arch_kwargs"]
    try:
        with without_memory():
            network = build_network(channels, outputs, **arguments)
    except (RuntimeError, OverflowError) as error:
        raise UserError(f"the network of this config cannot be built: {error}") from error
    network.backbone.set_grad_checkpointing(config.train.grad_checkpointing)
    if config.train.grad_checkpointing_head:
        name = f"train.grad_checkpointing_head: head {config.model.model_path!r}"
        set_recompute(network.head, name)
    network.train()
    return network


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

    Raises:
        UserError: when it counts, a head whose step cannot be.
    """
    recipe = resolved_recipe(config, pretrained=True)
    rates = {key: recipe[key] for key in OPTIMIZER_KEYS}
    dtype = None if config.train.amp_dtype == "float32" else torch.bfloat16
    loss = _loss_of(labels)
    maps = labels.num_segmentation_heads if labels.has_regions else 1
    beside = _held_beside(network, config)

    def count(batch: int, tile: Size) -> int:
        def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> object:
            image, target = torch.empty(batch, channels, *tile), torch.zeros(batch, maps, *tile)
            clip = config.train.gradient_clip
            batches = [(image, target)]
            return training_step(
                network, loss, optimizer, batches, gradient_clip=clip, amp_dtype=dtype
            )

        try:
            return beside + count_peak(network, step, partial(build_optimizer, **rates))
        except Exception as error:  # a head may ask what a tensor holds, and these hold nothing
            raise UserError(
                "a training step of this config cannot be counted: "
                f"{type(error).__name__}: {reason_of(error)}; plan with nnUNetv2_plan_experiment, "
                "and say train.patch_size and train.batch_size"
            ) from error

    return count


def _held_beside(network: nn.Module, config: ViTnnUNetConfig) -> int:
    """Return the bytes of what one step alone does not show: an average, gradients so far."""
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return trained * ((config.train.ema > 0) + (config.train.accumulate_steps > 1))


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
