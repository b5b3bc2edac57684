"""Collect what is known of all results of a data set."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_vit_trainer.plans.datasets import find_dataset, read_splits
from nnunet_vit_trainer.results.costs import costs_of
from nnunet_vit_trainer.results.subsets import parts_of
from vit_backbone import UserError, reason_of

from .paired import Paired, compare_pairs
from .result import Result, read_results
from .surfaces import check_library, measure_surfaces, unit_of

_SPLITS = 5
"""What nnU-Net splits a data set into, where it has not yet."""


@dataclass(frozen=True)
class Comparison:
    """All results of a data set.

    Attributes:
        dataset: its name.
        results: the best Dice first.
        unread: why folders of other results are left out.
        against: the result that the others are tested against; ``None`` where none is validated.
        pairs: these tests.
        tolerance: of surface Dice, in ``unit``; ``None`` where surfaces were not measured.
        unit: of distances, ``mm`` or ``px``.
    """

    dataset: str
    results: list[Result]
    unread: list[str]
    against: Result | None
    pairs: list[Paired]
    tolerance: float | None
    unit: str


def collect(
    dataset_name_or_id: str | int,
    *,
    against: str | None = None,
    tolerance: float | None = 1.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Read, count and measure all results of a data set in nnUNet_results.

    Args:
        dataset_name_or_id: ``Dataset042_Mine``, or 42.
        against: a result's name, or a part that only its name has; ``None`` is the best one.
        tolerance: of surface Dice, in mm, or pixels where images have no spacing; ``None`` leaves
            surfaces out.
        on_progress: is told how many masks are measured, and of how many.

    Raises:
        UserError: no such data set or result, none at all, or the library for surfaces is missing.
    """
    if tolerance is not None:
        check_library()
    name, folder = find_dataset(dataset_name_or_id, "nnUNet_results")
    preprocessed = Path(os.environ.get("nnUNet_preprocessed", ""), name)
    splits = read_splits(preprocessed)
    parts = [str(number) for number in parts_of(splits or [])]
    folds = [str(number) for number in range(len(splits or range(_SPLITS)))]
    wanted = [fold for fold in folds if fold not in parts]
    results, unread = read_results(folder, wanted, leave_out=parts)
    reference = _best(results) if against is None else find_result(results, against)
    for result in results:
        _count(result)
    if tolerance is not None:
        _measure(results, preprocessed / "gt_segmentations", tolerance, on_progress)
    pairs = compare_pairs(results, reference) if reference is not None else []
    return Comparison(name, results, unread, reference, pairs, tolerance, _unit(results))


def _unit(results: list[Result]) -> str:
    """Return the unit of distances by the first result whose reader is known; the data are one."""
    for result in results:
        try:
            return unit_of(result)
        except (KeyError, RuntimeError) as error:  # of nnU-Net: no reader, or an unknown one
            result.notes.append(
                f"its images' reader is not known here: {type(error).__name__}: {reason_of(error)}"
            )
    return "mm"


def find_result(results: Sequence[Result], asked: str) -> Result:
    """Return the result that ``--against`` means.

    Args:
        results: all.
        asked: a result's name, or a part that only its name has.

    Raises:
        UserError: none is meant, or several are, or it has no validation.
    """
    exact = [result for result in results if result.name == asked]
    found = exact or [result for result in results if asked in result.name]
    if len(found) != 1:
        names = ", ".join(result.name for result in found or results)
        what = "names several results" if found else "names no result"
        raise UserError(f"--against {asked!r} {what}: {names}")
    if not found[0].dice:
        why = "; ".join(found[0].notes) or "none of its folds has a validation"
        raise UserError(f"--against {found[0].name}: nothing to compare with: {why}")
    return found[0]


def _best(results: list[Result]) -> Result | None:
    best = results[0]
    return best if best.dice and not math.isnan(best.mean_dice().mean) else None


def _count(result: Result) -> None:
    try:
        of = (result.plans, result.dataset, result.trainer, result.configuration)
        result.costs = costs_of(*of)
    except UserError as error:
        result.notes.append(str(error))


def _measure(
    results: list[Result], truth: Path, tolerance: float, on_progress: Callable[[int, int], None]
) -> None:
    total = sum(len(cases) for result in results for cases in result.dice.values())
    done = 0

    def on_case() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    for result in results:
        measure_surfaces(result, truth, tolerance, on_case)
