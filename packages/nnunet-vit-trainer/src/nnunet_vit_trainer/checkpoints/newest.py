"""Which of a fold's checkpoints a run goes on from."""

from pathlib import Path

import torch

from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, reason_of, shorten

from .model_folder import BEST, FINAL

NAMES = (FINAL, "checkpoint_latest.pth", BEST)
"""nnU-Net's order: the first of those of one run that got equally far."""


def newest_checkpoint(fold_folder: Path) -> Path | None:
    """Return the checkpoint that holds most of the last training, or ``None`` where there is none.

    nnU-Net takes checkpoint_final before the others, which are newer where a finished run was given
    more epochs and then stopped, or was begun anew; and checkpoint_latest before a newer
    checkpoint_best.

    Raises:
        UserError: one of them cannot be read.
    """
    files = [file for name in NAMES if (file := fold_folder / name).is_file()]
    return max(files, key=_progress, default=None)


def _progress(file: Path) -> tuple[float, int, int]:
    """Return when its run began, the finished epochs, and the steps of the next one.

    Tensors are not read. A run that an earlier release began counts as the oldest.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
        ours = content.get(PLANS_KEY, {})
        began = float(ours.get("began", 0))
        return began, content["current_epoch"], len(ours.get("losses", []))
    except Exception as error:  # a broken file raises whatever its bytes lead to
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> UserError:
    """Return what to say of a checkpoint that is none, such as one that was cut off.

    Args:
        file: the checkpoint.
        error: of torch.
    """
    return UserError(
        f"{shorten(file, 300)} cannot be read as a checkpoint ({reason_of(error, 100)}); move it "
        "away, then --c goes on from another one"
    )
