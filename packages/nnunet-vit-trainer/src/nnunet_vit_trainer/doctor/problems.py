"""What may go wrong in a run, as one line each with the key to change. No torch here."""

import math
from dataclasses import dataclass
from typing import Any

from nnunet_vit_trainer.plans.derive import PLANS_KEY

FEW_STEPS = 1000
"""Fewer optimizer steps than this are called few; nnU-Net's own runs take 250,000."""

MUCH_PADDING = 0.1
"""Padding up to this share of the tile's pixels is not mentioned."""


@dataclass(frozen=True)
class Problem:
    """Something to change before the run.

    Attributes:
        key: of the config, or ``data``.
        text: one line: what is wrong, and what to do.
        fatal: the run would fail, or learn nothing worth having.
    """

    key: str
    text: str
    fatal: bool = True

    def line(self) -> str:
        """Say it in one line."""
        return f"{self.key}: {self.text}"


def padded_size(size: list[int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a tile after padding to whole patches of the backbone."""
    height, width = (math.ceil(side / p) * p for side, p in zip(size, patch, strict=True))
    return height, width


def foreseeable(plans: dict[str, Any], patch: tuple[int, int]) -> list[Problem]:
    """List what the derived plans alone give away.

    Args:
        plans: derived, with one configuration.
        patch: height and width of the backbone's patches in pixels.
    """
    (settings,) = plans["configurations"].values()
    ours = plans[PLANS_KEY]
    found = [
        _idle_backbone(settings["architecture"]["arch_kwargs"], ours["weights"]),
        _padding(settings["patch_size"], patch),
        _few_steps(ours["train"]),
    ]
    return [problem for problem in found if problem is not None]


def _idle_backbone(arguments: dict[str, Any], weights: dict[str, Any] | None) -> Problem | None:
    if weights is not None or not (arguments["use_lora"] or arguments["freeze_backbone"]):
        return None
    if blocks := arguments.get("backbone_options", {}).get("train_last_blocks"):
        return Problem(
            "model.checkpoint_path",
            f"the backbone has random weights, and all but its last {blocks} blocks stay so; give "
            "a weight file, or train all of it (model.tune: full)",
        )
    how = "under LoRA" if arguments["use_lora"] else "frozen"
    return Problem(
        "model.checkpoint_path",
        f"the backbone has random weights and stays {how}, so it never learns; give a weight "
        "file, or train all of it (model.tune: full)",
    )


def _padding(size: list[int], patch: tuple[int, int]) -> Problem | None:
    padded = padded_size(size, patch)
    more = math.prod(padded) / math.prod(size) - 1
    if more <= MUCH_PADDING:
        return None
    return Problem(
        "train.patch_size",
        f"{size} is padded to {list(padded)}, whole patches of {patch[0]} px: {more:.0%} more "
        "pixels; a multiple costs nothing",
        fatal=False,
    )


def _few_steps(train: dict[str, Any]) -> Problem | None:
    steps = train["num_epochs"] * train["num_iterations_per_epoch"]
    if steps >= FEW_STEPS:
        return None
    return Problem(
        "train.num_epochs",
        f"{train['num_epochs']} epochs of {train['num_iterations_per_epoch']} iterations are "
        f"{steps} steps, which is few",
        fatal=False,
    )
