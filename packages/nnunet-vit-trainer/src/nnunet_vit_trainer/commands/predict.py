# PYTHON_ARGCOMPLETE_OK
"""The command that predicts: nnUNetv2_predict's arguments and files, in batches."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_vit_trainer.config.names import DEFAULT_TRAINER
from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser

if TYPE_CHECKING:
    from nnunet_vit_trainer.prediction.cases import Case
    from nnunet_vit_trainer.prediction.files import Course
    from nnunet_vit_trainer.sharing.manifest import Manifest

_FAST_STEP, _STEP = 0.8, 0.5


@one_line_errors
def predict() -> None:
    """``nnUNetv2_predict_vit``: nnUNetv2_predict's arguments and files, in batches."""
    begun = time.perf_counter()
    arguments = _parser().parse_args()
    if arguments.prev_stage_predictions is not None:
        raise UserError("-prev_stage_predictions is of a 3D cascade: use nnUNetv2_predict")
    from nnunet_vit_trainer.launch.checks import check_device
    from nnunet_vit_trainer.prediction.continuing import check_continued
    from nnunet_vit_trainer.prediction.ensemble import folds_of
    from nnunet_vit_trainer.prediction.files import predict_cases, prepare_output
    from nnunet_vit_trainer.prediction.predictor import Predictor

    check_device(arguments.device, 1)
    for given in arguments.i:  # before the model is loaded
        if not given.exists():
            raise UserError(f"there is no image or folder {given}")
    model = _model_folder(arguments)
    manifest = _manifest(arguments)
    predictor = Predictor(
        model,
        arguments.f,
        arguments.chk,
        arguments.device,
        step=_step(arguments),
        mirror=not (arguments.disable_tta or arguments.fast),
        batch_size=arguments.batch_size,
        sum_on_device=not arguments.not_on_device,
    )
    cases, found = _cases(arguments, predictor.ensemble.dataset["file_ending"])
    folds = folds_of(model, arguments.f, arguments.chk)
    weights = [model / f"fold_{fold}" / arguments.chk for fold in folds]
    if arguments.continue_prediction:
        check_continued(predictor, arguments.o, weights)
    continued = arguments.continue_prediction
    prepare_output(predictor, arguments.o, vars(arguments), weights, cases, continued=continued)
    if manifest is not None:
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        names = [case.name for case in cases]
        manifest.begin(model, predictor.ensemble.plans.plans, weights, command, names)
    loaded = time.perf_counter()
    with _progress(len(cases), arguments.disable_progress_bar) as on_progress:
        course = predict_cases(
            predictor,
            cases,
            arguments.o,
            probabilities=arguments.save_probabilities,
            readers=max(arguments.npp, 1),
            writers=max(arguments.nps, 1),
            on_progress=on_progress,
        )
    course.seconds["start and load"] = loaded - begun
    predicted = len(cases) - len(course.failed)
    _print_table(course, predicted, found, time.perf_counter() - begun)
    if predicted:
        print(f"Masks: {arguments.o}")
    _end(course.failed, len(cases), manifest)


def _end(failed: dict[str, str], count: int, manifest: "Manifest | None") -> None:
    """Complete the manifest, and tell which cases failed, though a full disk takes no manifest."""
    said = []
    if failed:
        name, why = next(iter(failed.items()))
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        said.append(f"{len(failed)} of {count} cases failed: {name}: {why}{more}")
    if manifest is not None:
        try:
            manifest.end(failed)
        except UserError as error:
            said.append(str(error))
    if said:
        raise UserError("; ".join(said))


def _cases(arguments: argparse.Namespace, ending: str) -> tuple[list["Case"], int]:
    """Return the cases to predict, whose masks replace nothing, and how many there are in all."""
    from nnunet_vit_trainer.prediction.cases import (
        check_output,
        check_replaced,
        find_cases,
        not_done,
        part_of,
    )

    cases = find_cases(arguments.i, ending)
    check_output(cases, arguments.o, ending)
    cases = part_of(cases, arguments.part_id, arguments.num_parts)
    found = len(cases)
    wanted = arguments.save_probabilities
    if arguments.continue_prediction:
        cases = not_done(cases, arguments.o, ending, probabilities=wanted)
    check_replaced(cases, arguments.o, ending, probabilities=wanted)
    return cases, found


def _step(arguments: argparse.Namespace) -> float:
    if arguments.step_size is not None:
        return arguments.step_size
    return _FAST_STEP if arguments.fast else _STEP


def _model_folder(arguments: argparse.Namespace) -> Path:
    """Return the model's folder: the one given, or that of the data set in nnUNet_results."""
    if arguments.m is not None:
        if arguments.d or arguments.p:
            raise UserError("-m names the model's folder; leave -d and -p away, or -m")
        return arguments.m
    if not (arguments.d and arguments.p):
        raise UserError("say which model: -d DATASET -p PLANS (as nnUNetv2_predict), or -m FOLDER")
    from nnunet_vit_trainer.plans.datasets import find_dataset

    _, folder = find_dataset(arguments.d, "nnUNet_results")
    model = folder / f"{arguments.tr}__{arguments.p}__{arguments.c}"
    if not model.is_dir():
        models = sorted(file.parent.name for file in folder.glob("*/plans.json"))
        there = ", ".join(models) or "none"
        raise UserError(f"there is no model {model.name} in {folder}; there are: {there}")
    return model


def _manifest(arguments: argparse.Namespace) -> "Manifest | None":
    """Look at the manifest that is there before anything is loaded."""
    from nnunet_vit_trainer.sharing.manifest import Manifest, is_kept

    if not (arguments.manifest or is_kept(arguments.o)):
        return None
    return Manifest(arguments.o, (arguments.part_id, arguments.num_parts))


@contextlib.contextmanager
def _progress(total: int, disabled: bool) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disabled = disabled or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as bar:
        task = bar.add_task("", total=total)
        yield lambda cases: bar.update(task, completed=cases)


def _print_table(course: "Course", predicted: int, found: int, seconds: float) -> None:
    """Say where the time went: the stages of the main thread add up to the whole."""
    from rich.console import Console
    from rich.table import Table

    spent = dict(course.seconds)
    beside = {name: spent.pop(name, 0.0) for name in ("read and preprocess", "resample and write")}
    spent["network"] = seconds - sum(spent.values())
    table = Table(title=f"{predicted} of {found} cases in {seconds:.1f} s", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name in ("start and load", "wait for images", "network", "wait for writing"):
        table.add_row(name, f"{spent.get(name, 0.0):.1f}", f"{spent.get(name, 0.0) / seconds:.0%}")
    table.add_section()
    for name, value in beside.items():
        table.add_row(f"{name} (beside it)", f"{value:.1f}", "")
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_predict_vit",
        example="nnUNetv2_predict_vit -i IMAGES -o MASKS -d 42 -p nnUNetPlans_my",
        about="Predict with a trained model as nnUNetv2_predict does, with its arguments and "
        "files, in batches across tiles, mirrors and cases. Takes stock nnU-Net's 2D models too.",
        read_on="docs/prediction.md (what it does otherwise, and how fast it is)",
    )
    add = parser.add_argument
    add("-i", nargs="+", type=Path, required=True, metavar="IMAGES", help="a folder, or files")
    add("-o", type=Path, required=True, metavar="FOLDER", help="where masks go")
    add("-d", metavar="DATASET", help="dataset name or ID")
    add(
        "-tr",
        default=DEFAULT_TRAINER,
        metavar="TRAINER",
        help="trainer (default: %(default)s)",
    )
    add("-p", metavar="PLANS", help="plans, such as nnUNetPlans_my")
    add("-c", default="2d", metavar="CONFIGURATION", help="configuration (default: %(default)s)")
    add("-m", type=Path, metavar="FOLDER", help="the model's folder, instead of -d -tr -p -c")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that are there)")
    add("-chk", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    add("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: %(default)s")
    add("-step_size", type=float, metavar="SHARE", help=f"distance of tiles (default: {_STEP})")
    add("--disable_tta", action="store_true", help="no mirroring: faster, a little less accurate")
    add("--fast", action="store_true", help=f"no mirroring, step size {_FAST_STEP}")
    add("--save_probabilities", action="store_true", help="write .npz too, for ensembling")
    add(
        "--manifest",
        action="store_true",
        help="write what made the masks beside them, as each later run there does",
    )
    add("--continue_prediction", action="store_true", help="leave alone what is predicted already")
    add("-npp", type=int, default=2, metavar="N", help="threads that read (default: %(default)s)")
    add("-nps", type=int, default=2, metavar="N", help="threads that write (default: %(default)s)")
    add("-num_parts", type=int, default=1, metavar="N", help="this is one of N such commands")
    add("-part_id", type=int, default=0, metavar="I", help="which of them, from 0")
    add("-batch_size", type=int, metavar="N", help="tiles at once (default: 4 on a CPU, else 32)")
    add("-prev_stage_predictions", help=argparse.SUPPRESS)
    add("--verbose", action="store_true", help="taken as nnUNetv2_predict takes it; says no more")
    add("--not_on_device", action="store_true", help="put logits together in the CPU's memory")
    add("--disable_progress_bar", action="store_true", help="no bar; there is none in a pipe")
    return parser
