"""What a finished validation says and leaves to look at: warnings, overlay sheet, report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import reason_of

from .verdict import find_emptiness

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit


def conclude_validation(trainer: "nnUNetTrainer_vit") -> None:
    """Say in the log what makes a validation's figures say nothing, and draw it.

    Args:
        trainer: which has validated; nothing is done where it wrote no summary.
    """
    fold = Path(trainer.output_folder)
    summary = fold / "validation" / "summary.json"
    if not summary.is_file():
        return
    line = find_emptiness(read_json(summary))
    if line is not None:
        trainer.print_to_log_file(f"WARNING: {line}")
    show_validation(fold, trainer.logger.get_checkpoint(), trainer.print_to_log_file)


def show_validation(
    fold: Path, logged: Mapping[str, Sequence[Any]], tell: Callable[[str], None]
) -> None:
    """Draw the overlay sheet and write the report of a fold; a training never fails of it.

    Args:
        fold: the fold's folder, with ``validation/summary.json``.
        logged: what nnU-Net's logger holds.
        tell: writes a line to the training's log.
    """
    # Only the end of a run needs them; its start does not wait for their imports.
    from nnunet_vit_trainer.pictures.validation import draw_validation
    from nnunet_vit_trainer.report.write import write_report

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
