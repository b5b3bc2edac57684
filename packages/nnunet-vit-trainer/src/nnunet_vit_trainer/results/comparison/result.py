"""One result of a data set: a model's folder in nnUNet_results, ours or stock nnU-Net's."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.results.costs import Costs
from nnunet_vit_trainer.results.folds import (
    ALL,
    FINAL,
    SUMMARY,
    Dice,
    Fold,
    class_keys,
    folds_in,
    read_summary,
)
from nnunet_vit_trainer.results.spread import Spread, dice_by_class, mean_of, spread_of
from nnunet_vit_trainer.results.training_log import read_training
from vit_backbone import UserError, reason_of, shorten

_PART = r"(?:(?!__).)+"
_NAME = re.compile(rf"{_PART}__{_PART}__{_PART}")


@dataclass(frozen=True)
class Surface:
    """What the surfaces of a fold's masks say.

    Attributes:
        dice: surface Dice at a tolerance, mean over classes.
        hd95: 95th percentile of the distances, likewise, in mm or pixels.
    """

    dice: float
    hd95: float


@dataclass
class Result:
    """A model's folder, and what is known of it; what is not has a note.

    Attributes:
        name: of the folder, ``<trainer>__<plans>__<configuration>``.
        folder: it is there.
        plans: its.
        dataset: the content of its ``dataset.json``.
        dice: of each validated fold, by class name. Fold ``all`` is not among them.
        surfaces: of each of these folds, where they were measured.
        costs: of the network; ``None`` where it cannot be counted here.
        hours: of each fold that is trained to the end, where its logs tell.
        gibibytes: peak memory of each fold whose logs tell.
        megabytes: of each fold's checkpoint_final.
        notes: what is missing or left out, a sentence each.
    """

    name: str
    folder: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    dice: dict[str, Dice] = field(default_factory=dict)
    surfaces: dict[str, Surface] = field(default_factory=dict)
    costs: Costs | None = None
    hours: dict[str, float] = field(default_factory=dict)
    gibibytes: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def trainer(self) -> str:
        """The trainer's name."""
        return self.name.split("__")[0]

    @property
    def configuration(self) -> str:
        """The configuration's name."""
        return self.name.split("__")[2]

    def mean_dice(self) -> Spread:
        """Return the folds' Dice, each the mean over classes of the mean over cases."""
        return spread_of(mean_of(dice_by_class(cases).values()) for cases in self.dice.values())

    def class_dice(self) -> dict[str, Spread]:
        """Return each class's Dice over folds."""
        by_fold = [dice_by_class(cases) for cases in self.dice.values()]
        names = dict.fromkeys(name for of in by_fold for name in of)
        return {name: spread_of(of[name] for of in by_fold if name in of) for name in names}


def read_results(
    dataset_folder: Path, wanted: Sequence[str], leave_out: Collection[str] = ()
) -> tuple[list[Result], list[str]]:
    """Read every result of a data set, the best Dice first, those without one last.

    Args:
        dataset_folder: the data set's in nnUNet_results.
        wanted: names of folds; which of them are missing is noted.
        leave_out: folds that are not looked at; which of them are there is noted.

    Returns:
        The results, and why others cannot be read, a line each.

    Raises:
        UserError: there is none.
    """
    folders = [f for f in dataset_folder.iterdir() if f.is_dir()]
    results, unread = [], []
    for folder in sorted(folders):
        if not _NAME.fullmatch(folder.name):
            if (folder / "plans.json").is_file():
                form = "<trainer>__<plans>__<configuration>"
                unread.append(f"{shorten(folder.name)} is left out: its name is not {form}")
            continue
        try:
            results.append(_read(folder, wanted, leave_out))
        except (OSError, UserError) as error:
            unread.append(f"{folder.name} is left out: {reason_of(error)}")
    if not results:
        raise UserError(f"{dataset_folder} holds no results; train first")
    return sorted(results, key=_by_dice), unread


def _by_dice(result: Result) -> tuple[bool, float]:
    dice = result.mean_dice().mean if result.dice else math.nan
    return math.isnan(dice), 0.0 if math.isnan(dice) else -dice


def _read(folder: Path, wanted: Sequence[str], leave_out: Collection[str]) -> Result:
    if not (folder / "dataset.json").exists() and not any(folder.glob("fold_*/checkpoint_*.pth")):
        raise UserError("nothing was trained there, a run may have failed as it began")
    plans, dataset = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    result = Result(folder.name, folder, plans, dataset)
    there = folds_in(folder)
    folds = [fold for fold in there if fold.name not in leave_out]
    for fold in folds:
        _read_validation(result, fold)
        training = read_training(fold.folder)
        if training.hours is not None and (fold.is_finished or fold.is_validated):
            result.hours[fold.name] = training.hours
        if training.gibibytes is not None:
            result.gibibytes[fold.name] = training.gibibytes
        if fold.is_finished:
            result.megabytes[fold.name] = (fold.folder / FINAL).stat().st_size / 1e6
    result.notes += _missing(folds, wanted)
    if len(folds) < len(there):
        parts = ", ".join(fold.name for fold in there if fold.name in leave_out)
        result.notes.append(
            f"fold {parts}: left out, trained on a part of another fold's cases (--curve)"
        )
    return result


def _read_validation(result: Result, fold: Fold) -> None:
    if not fold.is_validated:
        return
    if fold.name == ALL:
        result.notes.append("fold all is left out: it is validated on cases that it trained on")
        return
    try:
        file = fold.folder / SUMMARY
        source = f"fold {fold.name}: summary.json"
        cases, checkpoint = read_summary(file.read_bytes(), source)
    except (OSError, UserError) as error:
        result.notes.append(f"not read: {reason_of(error)}")
        return
    if checkpoint != FINAL:
        result.notes.append(f"fold {fold.name}: validated with {shorten(checkpoint, 40)}")
    names = class_keys(result.dataset)
    result.dice[fold.name] = {
        case: {names.get(key, key): value for key, value in dice.items()}
        for case, dice in cases.items()
    }
    empty = [n for n, v in dice_by_class(result.dice[fold.name]).items() if v != v]
    if empty:
        result.notes.append(f"fold {fold.name}: no case has {', '.join(empty)}, nor any prediction")


def _missing(folds: list[Fold], wanted: Sequence[str]) -> list[str]:
    """Say which folds there are not, and which of those that are there are not through."""
    numbers = {fold.name for fold in folds}
    told = {
        "missing": [n for n in wanted if n not in numbers and numbers != {ALL}],
        "not trained to the end": [f.name for f in folds if not f.is_finished],
        "not validated": [f.name for f in folds if f.is_finished and not f.is_validated],
    }
    return [f"{what}: fold {', '.join(names)}" for what, names in told.items() if names]
