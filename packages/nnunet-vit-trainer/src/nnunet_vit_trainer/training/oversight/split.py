"""The cases of a fold: a run goes on, and is validated, with those that it began with."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vit_backbone import UserError

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit


def checked_split(
    began_with: str | None, training: Iterable[str], validation: Iterable[str]
) -> str:
    """Return what tells a split from another; refuse another one than a run began with.

    Args:
        began_with: of the run's checkpoint; ``None`` where it does not say, as of a new run.
        training: names of cases, in any order.
        validation: likewise.

    Raises:
        UserError: splits_final.json was changed since.
    """
    parts = ("\n".join(sorted(map(str, names))) for names in (training, validation))
    found = hashlib.sha256("\n\n".join(parts).encode()).hexdigest()
    if began_with not in (None, found):
        raise UserError(
            "splits_final.json: the cases of this fold are others than its training began with, so "
            "it could be validated on cases that it was trained on; put that file back, or train "
            "the fold anew (without --c and --val)"
        )
    return found


def keep_masks_of(trainer: "nnUNetTrainer_vit", cases: Iterable[str], folder: Path) -> None:
    """Remove the masks of other cases, and say so in the log; see `remove_others`.

    Args:
        trainer: that validates.
        cases: that it validates on.
        folder: of the validation; it need not exist.
    """
    truths = Path(str(trainer.preprocessed_dataset_folder_base), "gt_segmentations")
    if others := remove_others(folder, cases, trainer.dataset_json["file_ending"], truths):
        trainer.print_to_log_file(
            f"WARNING: removed from {folder}, since this fold is not validated on them: the masks "
            f"of {len(others)} cases, such as {others[0]}"
        )


def remove_others(folder: Path, cases: Iterable[str], ending: str, truths: Path) -> list[str]:
    """Remove the masks of other cases, which nnU-Net would score beside those of this validation.

    They are of another split, that the fold had before: the network may be trained on them now.

    Args:
        folder: of the validation; it need not exist.
        cases: that are validated.
        ending: of masks, as dataset.json has it.
        truths: the folder of nnU-Net's ``gt_segmentations``: a file of another name is no mask.

    Returns:
        The cases whose masks were removed, and with them their probabilities (``--npz``).
    """
    own = {*map(str, cases)}
    masks = {file.name for file in folder.glob("*") if (truths / file.name).is_file()}
    others = sorted({n.removesuffix(ending) for n in masks if n.endswith(ending)} - own)
    for name in others:
        for kind in (ending, ".npz", ".pkl"):
            (folder / f"{name}{kind}").unlink(missing_ok=True)
    return others
