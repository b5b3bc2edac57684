"""Make a ViT's 2D configuration of nnU-Net's own, and keep the reasons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nnunet_vit_trainer.config.schema import ViTTrainConfig
from vit_backbone import UserError

from .choice import Choice, Given, choose
from .memory import CUDA, GIB, Line, countable, line_of
from .reasons import Reasons, reasons_of_choice, reasons_of_memory, reasons_of_unseen
from .tiles import Size

_NNUNETS_DATA = "nnUNetPlans_2d"
"""What nnU-Net calls the preprocessed data of its own plan, which has all but the spacing."""

_TRIES, _LESS = 4, 0.9
"""Where a step takes more than the line says: so often with so much less."""


class Adapter:
    """Makes a ViT's 2D configuration of nnU-Net's.

    Args:
        train: the config's section; its tile and batch are kept.
        patch: the backbone's.
        widths: of each class's typical object, in the pixels of nnU-Net's plan.
        count: the bytes of a step, for a batch of tiles.
        memory: the device's, in bytes.
        source: where that is from.
        unseen: classes of which no mask that was looked at holds a whole object.

    Attributes:
        reasons: of the configuration that was made last.
    """

    def __init__(
        self,
        train: ViTTrainConfig,
        patch: Size,
        widths: Mapping[str, float],
        count: Callable[[int, Size], int],
        memory: float,
        source: str,
        unseen: Sequence[str] = (),
    ) -> None:
        self.train = train
        self.patch = patch
        self.widths = widths
        self.count = count
        self.memory = memory
        self.source = source
        self.unseen = unseen
        self.reasons: Reasons = []

    def __call__(self, nnunet: dict[str, Any], pixels: float) -> dict[str, Any]:
        """Make it, and write the reasons down.

        Args:
            nnunet: nnU-Net's own 2D configuration.
            pixels: of the whole data set in its spacing.

        Raises:
            UserError: no tile fits the memory, or the config's own does not.
        """
        height, width = self.train.patch_size or (0, 0)
        given = Given(
            image=[float(side) for side in nnunet["median_image_size_in_voxels"]],
            patch=self.patch,
            width=min(self.widths.values(), default=None),
            memory=0,
            pixels=pixels,
            tile=(height, width) if height else None,
            batch=self.train.batch_size,
        )
        line = line_of(self.count, self.patch)
        choice, peak = fit(given, line, self.count, countable(self.memory))
        self.reasons = [
            *reasons_of_memory(self.memory, self.source, line),
            *reasons_of_choice(given, choice, self.widths, nnunet),
            *reasons_of_unseen(self.unseen),
            ("step", f"{peak / GIB:.2f} GiB of {countable(self.memory) / GIB:.2f}, counted"),
        ]
        return adapted(nnunet, choice)


def fit(
    given: Given, line: Line, count: Callable[[int, Size], int], memory: float
) -> tuple[Choice, int]:
    """Choose a plan whose step was counted to fit; return it and the bytes of the step.

    Args:
        given: all but its memory.
        line: what a step takes, about.
        count: what it takes, for a batch of tiles.
        memory: in bytes.

    Raises:
        UserError: none fits.
    """
    pixels = line.pixels_in(memory)
    for _ in range(_TRIES):
        choice = choose(replace(given, memory=pixels))
        if choice is None or choice.batch > choice.fitting:
            break
        peak = count(choice.batch, choice.tile)
        if peak <= memory:
            return choice, peak
        pixels *= _LESS
    asked = [f"train.patch_size {list(given.tile)}"] if given.tile else []
    asked += [f"train.batch_size {given.batch}"] if given.batch else []
    short = f"memory is not enough for {' and '.join(asked) or 'a batch of two tiles'}"
    if memory <= 0:
        raise UserError(
            f"{short}: CUDA's own {CUDA / GIB:.1f} GiB leave nothing of it; give more "
            "(-gpu_memory_target)"
        )
    raise UserError(
        f"{short}: {memory / GIB:.1f} GiB may be counted, {line.fixed / GIB:.1f} of them for the "
        "network; give more (-gpu_memory_target), or use a smaller model.backbone_size, or "
        "train.grad_checkpointing: true" + (", or smaller ones" if asked else "")
    )


def adapted(nnunet: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """Return nnU-Net's 2D configuration with the spacing, tile and batch that were chosen.

    Data of another spacing get another name, so that no plan takes those of an earlier one; those
    of nnU-Net's own spacing are nnU-Net's own.

    Args:
        nnunet: its own.
        choice: that was made.
    """
    finer = f"_{choice.side}px" if choice.side else ""
    image = nnunet["median_image_size_in_voxels"]
    return nnunet | {
        "data_identifier": f"{_NNUNETS_DATA}{finer}",
        "spacing": [float(of / choice.factor) for of in nnunet["spacing"]],
        "median_image_size_in_voxels": [float(side * choice.factor) for side in image],
        "patch_size": list(choice.tile),
        "batch_size": choice.batch,
    }
