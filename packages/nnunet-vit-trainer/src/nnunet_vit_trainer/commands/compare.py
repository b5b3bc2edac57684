# PYTHON_ARGCOMPLETE_OK
"""The command that compares all results of a data set."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from vit_backbone import UserError, reason_of

from .errors import one_line_errors
from .parser import CommandParser

_FIGURES = (".png", ".pdf", ".svg")


@one_line_errors
def compare() -> None:
    """``nnUNetv2_compare_vit``: a row per result, ours and stock nnU-Net's."""
    arguments = _parser().parse_args()
    files = [arguments.csv, arguments.markdown, arguments.plot]
    _check_files([file for file in files if file is not None], arguments.plot)
    if not 0 < arguments.tolerance < float("inf"):
        raise UserError(f"--tolerance {arguments.tolerance:g}: a number above 0 is expected")
    from nnunet_vit_trainer.results.comparison.collect import collect
    from nnunet_vit_trainer.results.comparison.page import print_comparison
    from nnunet_vit_trainer.results.comparison.plot import write_plot
    from nnunet_vit_trainer.results.comparison.reports import csv_of, markdown_of

    with _progress() as on_progress:
        found = collect(
            arguments.dataset_name_or_id,
            against=arguments.against,
            tolerance=None if arguments.no_surface else arguments.tolerance,
            on_progress=on_progress,
        )
    print_comparison(found)
    with _disk_in_one_line():
        if arguments.csv is not None:
            _write(arguments.csv, csv_of(found))
        if arguments.markdown is not None:
            _write(arguments.markdown, markdown_of(found))
        if arguments.plot is not None:
            write_plot(found, arguments.plot)


def _check_files(files: list[Path], plot: Path | None) -> None:
    """Refuse, before the work, what could not be written after it."""
    if plot is not None and plot.suffix.lower() not in _FIGURES:
        raise UserError(f"--plot {plot}: a name that ends in {', '.join(_FIGURES)} is expected")
    for file in files:
        if file.is_dir():
            raise UserError(f"{file} is a folder; give the name of a file to write")
        if not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent}; make it first")


def _write(file: Path, text: str) -> None:
    from nnunet_vit_trainer.checkpoints.files import written_whole

    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _disk_in_one_line() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"not written: {reason_of(error)}") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("measuring surfaces", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_compare_vit",
        example="nnUNetv2_compare_vit 42 --csv results.csv --plot results.png",
        about="Compare all results of a data set in nnUNet_results, stock nnU-Net's too: Dice, "
        "surface Dice, HD95, what they cost, and a paired test over cases against the best. "
        "Reports that are there are written over.",
        read_on="docs/compare.md",
    )
    add = parser.add_argument
    add("dataset_name_or_id", metavar="DATASET", help="dataset name or ID")
    add("--against", metavar="NAME", help="test against this result (or part of its name)")
    add("--csv", type=Path, metavar="FILE", help="write a line per result, every figure in full")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    add("--plot", type=Path, metavar="FILE.png", help="write a figure (also .pdf, .svg)")
    add("--no-surface", action="store_true", help="leave surface metrics out (slow in 3D)")
    add(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="DISTANCE",
        help="of surface Dice, in mm, or pixels where images have no spacing (default: 1)",
    )
    return parser
