# PYTHON_ARGCOMPLETE_OK
"""The command that compares all results of a data set."""

import argparse
import contextlib
import shlex
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
    _check_options(arguments)
    files = [arguments.csv, arguments.markdown, arguments.plot]
    _check_files([file for file in files if file is not None], arguments.plot)
    if arguments.curve_splits is not None:
        _append_folds(arguments)
    elif arguments.curve:
        _compare_curves(arguments)
    else:
        _compare_results(arguments)


def _compare_results(arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.results.comparison.collect import collect
    from nnunet_vit_trainer.results.comparison.page import print_comparison
    from nnunet_vit_trainer.results.comparison.plot import write_plot
    from nnunet_vit_trainer.results.comparison.reports import csv_of, markdown_of

    tolerance = 1.0 if arguments.tolerance is None else arguments.tolerance
    with _progress() as on_progress:
        found = collect(
            arguments.dataset_name_or_id,
            against=arguments.against,
            tolerance=None if arguments.no_surface else tolerance,
            on_progress=on_progress,
        )
    print_comparison(found)
    _write(arguments, csv_of(found), markdown_of(found), lambda file: write_plot(found, file))


def _compare_curves(arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.results.comparison.page import print_page
    from nnunet_vit_trainer.results.comparison.reports import csv_table, markdown_page
    from nnunet_vit_trainer.results.curve.collect import collect_curves
    from nnunet_vit_trainer.results.curve.plot import write_curve_plot
    from nnunet_vit_trainer.results.curve.tables import curve_rows_of, curve_tables_of

    found = collect_curves(arguments.dataset_name_or_id, against=arguments.against)
    title = f"{found.dataset}: learning curves"
    page = (title, [of.name for of in found.results], curve_tables_of(found), found.notes)
    print_page(*page)
    _write(
        arguments,
        csv_table(curve_rows_of(found)),
        markdown_page(*page),
        lambda file: write_curve_plot(found, file),
    )


def _append_folds(arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.plans.datasets import find_dataset
    from nnunet_vit_trainer.results.subsets import append_subsets

    dataset, folder = find_dataset(arguments.dataset_name_or_id)
    fold, seed = arguments.fold or 0, arguments.seed or 0
    with _disk_in_one_line():
        subsets = append_subsets(folder, arguments.curve_splits, fold=fold, seed=seed)
    numbers = list(dict.fromkeys(subset.fold for subset in subsets))
    count = len({subset.fold for subset in subsets if subset.is_new})
    print(f"{folder / 'splits_final.json'}: {count} fold{'s'[: count != 1]} appended")
    for subset in subsets:
        note = "" if subset.is_new else " (was there)"
        print(f"fold {subset.fold}: {subset.share:g} % of fold {fold}'s training cases: "
              f"{subset.cases}{note}")  # fmt: skip
    folds, name = " ".join(map(str, dict.fromkeys([*numbers, fold]))), shlex.quote(dataset)
    print(
        "Train all of them, ours and stock nnU-Net, such as:",
        f"  for f in {folds}; do",
        f"    nnUNetv2_train_vit {name} 2d $f --config my.yaml",
        f"    nnUNetv2_train {name} 2d $f",
        "  done",
        f"Then: nnUNetv2_compare_vit {name} --curve",
        "Give -f from now on where all folds of a model would predict or be exported: these are no "
        "members of its ensemble.",
        sep="\n",
    )


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse, before what takes seconds to import, options that are wrong or go by another one."""
    tolerance, shares = arguments.tolerance, arguments.curve_splits
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise UserError(f"--tolerance {tolerance:g}: a number above 0 is expected")
    for share in shares or ():
        if not 0 < share <= 100:
            raise UserError(
                f"--curve_splits {share:g}: percent of the training cases are expected, above 0 "
                "and at most 100"
            )
    given = {f"--{n}" for n in ("fold", "seed") if getattr(arguments, n) is not None}
    if given and shares is None:
        raise UserError(f"{' '.join(sorted(given))}: of --curve_splits, which is not there")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed {arguments.seed}: 0 to {2**32 - 1} are expected")
    others = ("curve", "against", "csv", "markdown", "plot", "tolerance", "no_surface")
    if shares is not None and (found := [n for n in others if getattr(arguments, n)]):
        names = ", ".join(f"--{name.replace('no_', 'no-')}" for name in found)
        raise UserError(f"--curve_splits only makes folds to train; leave {names} away")
    if arguments.curve and (tolerance is not None or arguments.no_surface):
        idle = "--no-surface" if tolerance is None else "--tolerance"
        raise UserError(f"--curve compares the Dice alone; leave {idle} away")


def _check_files(files: list[Path], plot: Path | None) -> None:
    """Refuse, before the work, what could not be written after it."""
    if plot is not None and plot.suffix.lower() not in _FIGURES:
        raise UserError(f"--plot {plot}: a name that ends in {', '.join(_FIGURES)} is expected")
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("--csv, --markdown and --plot are files of their own; give each its name")
    for file in files:
        if file.is_dir():
            raise UserError(f"{file} is a folder; give the name of a file to write")
        if not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent}; make it first")


def _write(
    arguments: argparse.Namespace, csv: str, markdown: str, plot: Callable[[Path], None]
) -> None:
    from nnunet_vit_trainer.checkpoints.files import written_whole

    with _disk_in_one_line():
        for file, text in ((arguments.csv, csv), (arguments.markdown, markdown)):
            if file is not None:
                with written_whole(file) as unfinished:
                    unfinished.write_text(text, encoding="utf-8")
        if arguments.plot is not None:
            plot(arguments.plot)


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
        example="nnUNetv2_compare_vit 42 --csv results.csv --plot results.png\n"
        "nnUNetv2_compare_vit 42 --curve_splits 10 25 50\n"
        "nnUNetv2_compare_vit 42 --curve --plot curve.png",
        about="Compare all results of a data set in nnUNet_results, stock nnU-Net's too: Dice, "
        "surface Dice, HD95, what they cost, and a paired test over cases against the best; or "
        "the Dice over the number of training cases. Reports that are there are written over.",
        read_on="docs/compare.md",
    )
    add = parser.add_argument
    add("dataset_name_or_id", metavar="DATASET", help="dataset name or ID")
    add(
        "--against",
        metavar="NAME",
        help="compare with this result, or part of its name (default: the best; of curves: "
        "stock's best)",
    )
    add("--csv", type=Path, metavar="FILE", help="write a line per result, every figure in full")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    add("--plot", type=Path, metavar="FILE.png", help="write a figure (also .pdf, .svg)")
    add("--no-surface", action="store_true", help="leave surface metrics out (slow in 3D)")
    add(
        "--tolerance",
        type=float,
        metavar="DISTANCE",
        help="of surface Dice, in mm, or pixels where images have no spacing (default: 1)",
    )
    add("--curve", action="store_true", help="learning curves, of folds on parts of the cases")
    add(
        "--curve_splits",
        nargs="+",
        type=float,
        metavar="PERCENT",
        help="append such folds to splits_final.json: nested shares of a fold's training cases",
    )
    add("--fold", type=int, metavar="N", help="that --curve_splits draws from (default: 0)")
    add("--seed", type=int, metavar="N", help="that --curve_splits draws by (default: 0)")
    return parser
