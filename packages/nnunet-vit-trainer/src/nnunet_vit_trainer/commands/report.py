# PYTHON_ARGCOMPLETE_OK
"""The command that writes the report of a finished run."""

import argparse
from pathlib import Path

from nnunet_vit_trainer.checkpoints.model_folder import named_folder
from nnunet_vit_trainer.results.folds import folds_in
from vit_backbone import UserError, reason_of

from .errors import one_line_errors
from .parser import CommandParser


@one_line_errors
def report() -> None:
    """``nnUNetv2_report_vit``: the overlay sheet and the report of folds that are validated."""
    arguments = _parser().parse_args()
    folds = _folds(named_folder(arguments.folder), arguments.f)  # before what takes seconds
    from nnunet_vit_trainer.pictures.validation import draw_validation
    from nnunet_vit_trainer.report.write import write_report

    failed = []
    for fold in folds:
        try:
            print(draw_validation(fold))
        except Exception as error:  # a report can do without
            print(f"no overlay sheet: {reason_of(error, 400)}")
        try:
            print(write_report(fold))
        except Exception as error:  # the next folds have theirs
            failed.append(f"no report of {fold}: {reason_of(error)}")
    if failed:
        raise UserError("; ".join(failed))


def _folds(folder: Path, asked: list[str] | None) -> list[Path]:
    """Return the folders of the folds that are validated, or of those that are asked for."""
    names = [fold.name for fold in folds_in(folder) if fold.is_validated]
    missing = [fold for fold in asked or () if fold not in names]
    if missing or not names:
        from nnunet_vit_trainer.checkpoints.model_folder import read_model

        read_model(folder)  # refuses what is no model, and names those near it
        raise UserError(
            f"{folder} has no validation of fold {', '.join(missing) or '0 or another'}; there "
            f"are: {', '.join(names) or 'none'} (nnUNetv2_train_vit --val validates)"
        )
    return [folder / f"fold_{name}" for name in dict.fromkeys(asked or names)]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_report_vit",
        example="nnUNetv2_report_vit RESULTS",
        about="Draw the overlay sheet of validated folds and write their reports, as each "
        "training does at its end: overlay.png and report.html in the fold's folder. The truth is "
        "looked for where the validation found it, in nnUNet_preprocessed and in nnUNet_raw.",
        read_on="docs/pictures.md",
    )
    add = parser.add_argument
    add(
        "folder",
        type=Path,
        metavar="RESULTS",
        help="a trained model's folder, <trainer>__<plans>__<configuration>",
    )
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that are validated)")
    return parser
