"""Which cases a probe is fitted on, and which it is scored on: the folds that a training has."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_vit_trainer.launch.checks import check_fold
from nnunet_vit_trainer.plans.datasets import read_splits
from nnunet_vit_trainer.probing.patches.sampling import even_shares
from nnunet_vit_trainer.results.subsets import parts_of
from vit_backbone import UserError, quoted

_NNUNETS_SPLITS = 5


class Fold(NamedTuple):
    """The cases of a fold; no case is in both."""

    train: list[str]
    test: list[str]


def folds_of(dataset_folder: Path, data_identifier: str, cases: Sequence[str]) -> list[Fold]:
    """Return the folds of ``splits_final.json``, or those that nnU-Net would make of the cases.

    Folds that train on a part of another one's cases (of a learning curve) are no further folds.

    Args:
        dataset_folder: in nnUNet_preprocessed.
        data_identifier: its folder of preprocessed cases.
        cases: all that are preprocessed.

    Raises:
        UserError: a single case, or splits that are none, name cases that are not there, or have a
            case in both parts.
    """
    splits = read_splits(dataset_folder)
    if splits is None:
        if len(cases) < 2:
            raise UserError(
                f"{len(cases)} case in {dataset_folder / data_identifier} cannot be "
                "cross-validated; give at least 2 (slices or pieces of one image are cases, too)"
            )
        count = min(_NNUNETS_SPLITS, len(cases))
        splits = generate_crossval_split(sorted(cases), n_splits=count)
    else:
        for number in range(len(splits)):
            check_fold(number, dataset_folder, data_identifier)
    folds = [Fold([*map(str, split["train"])], [*map(str, split["val"])]) for split in splits]
    for number, fold in enumerate(folds):
        if both := sorted({*fold.train} & {*fold.test}):
            raise UserError(
                f"{dataset_folder / 'splits_final.json'}: fold {number} has {len(both)} cases both "
                f"in 'train' and in 'val', such as {quoted(both[0])}; leave them in one of the two"
            )
    parts = parts_of(splits)
    return [fold for number, fold in enumerate(folds) if number not in parts]


def sample_cases(folds: Sequence[Fold], most: int, rng: np.random.Generator) -> list[str]:
    """Draw cases, as evenly as can be from those that each fold is scored on, and from the rest.

    Args:
        folds: of which no case that is in none of them is drawn.
        most: how many.
        rng: to draw by.
    """
    number_of = {case: number for number, fold in enumerate(folds) for case in fold.test}
    strata: dict[int, list[str]] = {}
    for case in sorted({case for fold in folds for part in fold for case in part}):
        strata.setdefault(number_of.get(case, -1), []).append(case)
    counts = even_shares([len(cases) for cases in strata.values()], most)
    drawn = [
        rng.permutation(cases)[:count].tolist()
        for cases, count in zip(strata.values(), counts, strict=True)
    ]
    return sorted(case for part in drawn for case in part)
