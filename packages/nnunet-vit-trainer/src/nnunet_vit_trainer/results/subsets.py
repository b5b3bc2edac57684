"""Folds that train on a part of another fold's cases and validate on the same: learning curves.

They stand in ``splits_final.json`` behind the folds that were there, so that nnU-Net, ours and
stock, trains them by their number.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.plans.datasets import read_splits
from vit_backbone import UserError

Splits = Sequence[dict[str, Any]]


class Subset(NamedTuple):
    """A fold of a learning curve.

    Attributes:
        fold: its number.
        cases: how many it trains on.
        share: of the whole fold's, in percent, as it was asked for.
        is_new: whether it was not there before.
    """

    fold: int
    cases: int
    share: float
    is_new: bool


class Family(NamedTuple):
    """Folds that validate on the same cases.

    Attributes:
        whole: the number of the fold that trains on the most cases, the first of these.
        parts: those that train on a part of its cases, or on the same; the fewest cases first.
        others: those that train on a case that it has not.
    """

    whole: int
    parts: list[int]
    others: list[int]


def families_of(splits: Splits) -> list[Family]:
    """Group folds by what they validate on.

    Args:
        splits: the content of ``splits_final.json``.
    """
    by_validation: dict[frozenset[str], list[int]] = {}
    for number in range(len(splits)):
        by_validation.setdefault(cases_in(splits, number, "val"), []).append(number)
    families = []
    for numbers in by_validation.values():
        trained = {number: cases_in(splits, number, "train") for number in numbers}
        numbers.sort(key=lambda number: len(trained[number]))
        whole = max(numbers, key=lambda number: (len(trained[number]), -number))
        rest = [number for number in numbers if number != whole]
        parts = [number for number in rest if trained[number] <= trained[whole]]
        families.append(Family(whole, parts, [n for n in rest if n not in parts]))
    return families


def parts_of(splits: Splits) -> dict[int, int]:
    """Return the folds that train on fewer of another fold's cases, each with that other fold.

    Args:
        splits: the content of ``splits_final.json``.
    """
    return {
        part: family.whole
        for family in families_of(splits)
        for part in family.parts
        if cases_in(splits, part, "train") < cases_in(splits, family.whole, "train")
    }


def cases_in(splits: Splits, fold: int, part: str) -> frozenset[str]:
    """Return the cases of a fold.

    Args:
        splits: the content of ``splits_final.json``.
        fold: its number.
        part: ``train`` or ``val``.
    """
    return frozenset(map(str, splits[fold][part]))


def nested_subsets(cases: Sequence[str], shares: Sequence[float], seed: int) -> list[list[str]]:
    """Draw a subset per share, each within every larger one: the first of one random order.

    Args:
        cases: in any order.
        shares: in percent; a subset has at least one case, and half a case counts as one.
        seed: of the order.
    """
    # Its stream is frozen, other than that of NumPy's newer generators.
    order = np.random.RandomState(seed).permutation(sorted(cases)).tolist()
    counts = [int(len(order) * Fraction(str(share)) / 100 + Fraction(1, 2)) for share in shares]
    return [sorted(order[: max(1, count)]) for count in counts]


def append_subsets(
    dataset_folder: Path, shares: Sequence[float], *, fold: int = 0, seed: int = 0
) -> list[Subset]:
    """Append a fold per share to ``splits_final.json``; what is there stays as it is.

    A subset that is there is not written again, so a second call changes nothing, one with other
    shares adds these (all of a seed are within each other), and one with another seed draws anew.

    Args:
        dataset_folder: in nnUNet_preprocessed.
        shares: above 0, at most 100, in percent of the fold's training cases; all of them are the
            fold itself.
        fold: whose cases are drawn from.
        seed: they are drawn by it.

    Returns:
        A fold for each share, the fewest cases first.

    Raises:
        UserError: no splits yet, no such fold, or one that is no whole fold.
        OSError: what the disk says.
    """
    file = (dataset_folder / "splits_final.json").resolve()  # where it is a link, it stays one
    splits = _read(dataset_folder)
    _check_whole(splits, fold, file)
    there = len(splits)
    validated = splits[fold]["val"]
    subsets = []
    drawn = nested_subsets([*cases_in(splits, fold, "train")], sorted(shares), seed)
    for share, cases in zip(sorted(shares), drawn, strict=True):
        number = _find(splits, fold, cases)
        if number is None:
            number = len(splits)
            splits.append({"train": cases, "val": validated})
        subsets.append(Subset(number, len(cases), share, number >= there))
    if len(splits) > there:
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(splits, indent=4, sort_keys=True), encoding="utf-8")
            if _read(dataset_folder) != splits[:there]:
                raise UserError(f"{file} was changed by another process just now; call again")
    return subsets


def _read(dataset_folder: Path) -> list[dict[str, Any]]:
    splits = read_splits(dataset_folder)
    if splits is None:
        raise UserError(
            f"{dataset_folder} has no splits_final.json yet: nnU-Net writes it when a first fold "
            "is trained. Train fold 0 (the curve needs it too), then call again"
        )
    return splits


def _check_whole(splits: Splits, fold: int, file: Path) -> None:
    """Refuse what is no whole fold, or no longer the whole of what was drawn from it."""
    if not 0 <= fold < len(splits):
        raise UserError(f"fold {fold}: {file} has {len(splits)} splits (0 to {len(splits) - 1})")
    if not splits[fold]["train"]:
        raise UserError(f"fold {fold} in {file} has no case in 'train' to draw from")
    if (whole := parts_of(splits).get(fold)) is not None:
        raise UserError(f"fold {fold} is itself a part of fold {whole} in {file}; give that one")
    family = next(f for f in families_of(splits) if fold in (f.whole, *f.parts, *f.others))
    if family.others:
        same = ", ".join(str(n) for n in sorted((family.whole, *family.parts, *family.others)))
        raise UserError(
            f"folds {same} in {file} validate on the same cases, but none of them trains on all "
            "that the others do; a curve needs one that does: mend the file, or give another fold"
        )


def _find(splits: Splits, fold: int, cases: Sequence[str]) -> int | None:
    """Return the fold that trains on these cases and validates as another one does."""
    for number in (fold, *range(len(splits))):
        same = cases_in(splits, number, "train") == frozenset(cases)
        if same and cases_in(splits, number, "val") == cases_in(splits, fold, "val"):
            return number
    return None
