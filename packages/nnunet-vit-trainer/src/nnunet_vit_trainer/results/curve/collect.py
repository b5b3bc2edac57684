"""Collect what all results of a data set reached on how many training cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.plans.datasets import find_dataset, read_splits
from nnunet_vit_trainer.results.comparison.collect import find_result
from nnunet_vit_trainer.results.comparison.result import Result, read_results
from nnunet_vit_trainer.results.spread import Spread, dice_by_class, mean_of, spread_of
from nnunet_vit_trainer.results.subsets import Family, Splits, cases_in, families_of
from nnunet_vit_trainer.results.training_log import read_training_cases
from vit_backbone import UserError


@dataclass(frozen=True)
class Curve:
    """Folds that validate on the same cases, by how many cases they train on.

    Attributes:
        whole: the fold that trains on all of them.
        validated: how many cases all of the folds validate on.
        trained: how many cases each fold trains on, the fewest first.
    """

    whole: str
    validated: int
    trained: dict[str, int]

    def counts(self) -> list[int]:
        """Return the numbers of training cases, the fewest first."""
        return list(dict.fromkeys(self.trained.values()))

    def share(self, count: int) -> float:
        """Return a number of training cases as percent of the whole fold's."""
        return 100 * count / self.trained[self.whole]

    def dice_at(self, result: Result, count: int) -> dict[str, float]:
        """Return the Dice of a result's folds that train on so many cases.

        Args:
            result: any.
            count: of training cases.
        """
        folds = [f for f, n in self.trained.items() if n == count and f in result.dice]
        return {fold: mean_of(dice_by_class(result.dice[fold]).values()) for fold in folds}

    def difference_at(self, result: Result, against: Result, count: int) -> tuple[Spread, int]:
        """Return by how much a result is better, over the folds that both have, and their number.

        Args:
            result: the one.
            against: the other.
            count: of training cases.
        """
        ours, theirs = (self.dice_at(of, count) for of in (result, against))
        both = [ours[fold] - theirs[fold] for fold in ours if fold in theirs]
        return spread_of(both), len(both)


@dataclass(frozen=True)
class Curves:
    """The learning curves of a data set.

    Attributes:
        dataset: its name.
        results: with a fold on a part of the cases, the best on all cases first.
        curves: one for each whole fold that has parts.
        against: the result that the others are compared with.
        notes: what is missing or left out, and why.
    """

    dataset: str
    results: list[Result]
    curves: list[Curve]
    against: Result
    notes: list[str]


def collect_curves(dataset_name_or_id: str | int, *, against: str | None = None) -> Curves:
    """Read all results of a data set whose folds train on parts of another fold's cases.

    Args:
        dataset_name_or_id: ``Dataset042_Mine``, or 42.
        against: a result's name, or a part that only its name has; ``None`` is stock nnU-Net's
            best, or the best where there is none of stock's.

    Raises:
        UserError: no such data set, no splits or none of the kind, or no result with such a fold.
    """
    name, folder = find_dataset(dataset_name_or_id, "nnUNet_results")
    _, preprocessed = find_dataset(name)
    splits = read_splits(preprocessed) or []
    families = [family for family in families_of(splits) if family.parts]
    if not families:
        raise UserError(
            f"{preprocessed / 'splits_final.json'} has no folds that train on parts of another "
            f"fold's cases; append some: nnUNetv2_compare_vit {name} --curve_splits 10 25 50"
        )
    curves = [_curve(splits, family) for family in families]
    found, unread = read_results(folder, [])
    for result in found:
        _leave_out_other_splits(result, splits)
    results = [result for result in found if _has_part(result, curves)]
    if not results:
        parts = ", ".join(f for curve in curves for f in curve.trained if f != curve.whole)
        said = "; ".join(f"{of.name}: {note}" for of in found for note in of.notes) or "none is"
        raise UserError(f"no result is validated on fold {parts} of {name}; train them ({said})")
    results.sort(key=lambda result: -_of_whole(result, curves))
    reference = _stocks_best(results) if against is None else _asked(results, found, against)
    notes = [
        f"{i}: {note}"
        for i, result in enumerate(results, 1)
        for note in [*_missing(result, curves), *result.notes]
    ]
    notes += [f"{of.name}: left out, {_why(of)}" for of in found if of not in results]
    notes += [note for family in families for note in _others(family)]
    return Curves(name, results, curves, reference, notes + unread)


def _curve(splits: Splits, family: Family) -> Curve:
    numbers = [*family.parts, family.whole]
    return Curve(
        whole=str(family.whole),
        validated=len(cases_in(splits, family.whole, "val")),
        trained={str(n): len(cases_in(splits, n, "train")) for n in numbers},
    )


def _leave_out_other_splits(result: Result, splits: Splits) -> None:
    """Leave folds out that were trained on another split than the file's of today."""
    ending = str(result.dataset.get("file_ending", ""))
    for fold, cases in list(result.dice.items()):
        reason = _misfit(result.folder / f"fold_{fold}", cases, splits, int(fold), ending)
        if reason:
            del result.dice[fold]
            result.notes.append(f"fold {fold}: left out, {reason}")


def _misfit(
    folder: Path, cases: dict[str, Any], splits: Splits, number: int, ending: str
) -> str | None:
    if number >= len(splits):
        return f"splits_final.json has no such split (0 to {len(splits) - 1})"
    if {case.removesuffix(ending) for case in cases} != cases_in(splits, number, "val"):
        return "it was validated on other cases than splits_final.json has for it"
    trained, told = len(cases_in(splits, number, "train")), read_training_cases(folder)
    if told not in (None, trained):
        return f"it was trained on {told} cases by its log, splits_final.json has {trained} for it"
    return None


def _has_part(result: Result, curves: Sequence[Curve]) -> bool:
    return any(f in result.dice for curve in curves for f in curve.trained if f != curve.whole)


def _of_whole(result: Result, curves: Sequence[Curve]) -> float:
    wholes = [curve.dice_at(result, curve.trained[curve.whole]) for curve in curves]
    mean = mean_of(dice for of in wholes for dice in of.values())
    return mean if mean == mean else -1.0


def _stocks_best(results: Sequence[Result]) -> Result:
    return next((result for result in results if "vit" not in result.plans), results[0])


def _asked(results: Sequence[Result], found: Sequence[Result], against: str) -> Result:
    """Return the result that ``--against`` means; of one that is left out it is said why."""
    if not any(against in of.name for of in results):
        for of in found:
            if against in of.name:
                raise UserError(f"--against {of.name}: {_why(of)}")
    return find_result(results, against)


def _missing(result: Result, curves: Sequence[Curve]) -> list[str]:
    gone = [
        f"{fold} ({count} cases)"
        for curve in curves
        for fold, count in curve.trained.items()
        if fold not in result.dice
    ]
    return [f"without fold {', '.join(gone)}"] if gone else []


def _why(result: Result) -> str:
    return "; ".join(["it has no fold on a part of the cases", *result.notes])


def _others(family: Family) -> list[str]:
    return [
        f"fold {fold} validates as fold {family.whole} does, but trains on cases that this one "
        "has not: left out"
        for fold in family.others
    ]
