"""What a validation leaves to look at: its overlay sheet and its report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.pictures.validation import draw_validation
from nnunet_vit_trainer.report.write import write_report
from vit_backbone import reason_of


def show_validation(
    fold: Path, logged: Mapping[str, Sequence[Any]], tell: Callable[[str], None]
) -> None:
    """Draw the overlay sheet and write the report of a fold; a training never fails of it.

    Args:
        fold: the fold's folder, with ``validation/summary.json``.
        logged: what nnU-Net's logger holds.
        tell: writes a line to the training's log.
    """
    for name, make in (
        ("overlay sheet", lambda: draw_validation(fold)),
        ("report", lambda: write_report(fold, logged)),
    ):
        try:
            tell(f"Validation: {name} in {make()}")
        except Exception as error:  # of images, masks and disks in any state
            tell(
                f"WARNING: no {name} of the validation: {type(error).__name__}: {reason_of(error)}"
            )
