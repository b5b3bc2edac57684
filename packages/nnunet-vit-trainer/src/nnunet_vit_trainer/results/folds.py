"""The folds of a trained model's folder, and what each one's validation found."""

import contextlib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_KEY, FINAL, FOLD_NAME
from nnunet_vit_trainer.plans.json_file import parse_json
from vit_backbone import UserError, quoted, shorten

SUMMARY = "validation/summary.json"
ALL = "all"
"""The fold that trains on every case, and validates on them."""

Dice = dict[str, dict[str, float]]
"""Of each case (its mask's file name): of each class's key in ``summary.json``, NaN where neither
mask has the class."""


@dataclass(frozen=True)
class Fold:
    """A fold's folder.

    Attributes:
        name: ``0``, ``1``, ... or ``all``.
        folder: it is there.
    """

    name: str
    folder: Path

    @property
    def is_finished(self) -> bool:
        """Whether its training went to the end."""
        return (self.folder / FINAL).is_file()

    @property
    def is_validated(self) -> bool:
        """Whether its validation did."""
        return (self.folder / SUMMARY).is_file()


def folds_in(model: Path) -> list[Fold]:
    """List the folds of a trained model's folder, numbers first.

    Args:
        model: ``<trainer>__<plans>__<configuration>``.
    """
    folders = [f for f in model.glob("fold_*") if f.is_dir() and re.fullmatch(FOLD_NAME, f.name)]
    folds = [Fold(folder.name.removeprefix("fold_"), folder) for folder in folders]
    return sorted(folds, key=lambda fold: order_of(fold.name))


def order_of(fold: str) -> tuple[bool, int]:
    """Return by what folds are sorted: their number, ``all`` last."""
    return fold == ALL, int(fold) if fold != ALL else 0


def repeats_in(found: Mapping[str, Dice]) -> dict[str, str]:
    """Name the folds that validated the cases of an earlier fold, each with that earlier one.

    Such are the parts of a fold that ``nnUNetv2_compare_vit --curve_splits`` makes.

    Args:
        found: by the validation of each fold, in the order of the folds.
    """
    first: dict[frozenset[str], str] = {}
    earlier = {name: first.setdefault(frozenset(of), name) for name, of in found.items() if of}
    return {name: other for name, other in earlier.items() if name != other}


def members_among(folds: Sequence[str], found: Mapping[str, Dice]) -> list[str]:
    """Name the folds that predict together.

    ``all`` beside others is none of them, nor is a fold that validated an earlier one's cases.

    Args:
        folds: in their order.
        found: by the validation of each fold, in the order of the folds.
    """
    repeats = repeats_in(found)
    numbered = [fold for fold in folds if fold != ALL] or folds
    return [fold for fold in numbered if fold not in repeats]


def refuse_alike(model: Path, names: Sequence[int | str]) -> None:
    """Refuse folds of which two validated the same cases: they are no members of one ensemble.

    A fold that was not validated, or not readably, passes; see `repeats_in`.

    Args:
        model: ``<trainer>__<plans>__<configuration>``.
        names: of its folds.

    Raises:
        UserError: there are such folds.
    """
    found: dict[str, Dice] = {}
    for name in names:
        file = model / f"fold_{name}" / SUMMARY
        with contextlib.suppress(OSError, UserError):
            found[str(name)] = read_summary(file.read_bytes(), str(file))[0]
    repeats = repeats_in(found)
    for first in repeats.values():
        alike = [first, *(name for name, earlier in repeats.items() if earlier == first)]
        raise UserError(
            f"folds {', '.join(alike)} of {model} validated the same cases, as those do that "
            "train on a part of a fold's cases: they are no ensemble; say with -f which are one"
        )


class _Case(BaseModel):
    reference_file: str
    metrics: dict[str, dict[str, Any]]


class _Summary(BaseModel):
    metric_per_case: list[_Case]
    checkpoint: str = Field(default=FINAL, alias=CHECKPOINT_KEY)


def read_dice(text: str | bytes, source: str, checkpoint: str) -> Dice:
    """Read the Dice of each case and class from the ``summary.json`` of a checkpoint's validation.

    Args:
        text: its content.
        source: where it is from, for messages.
        checkpoint: its file name.

    Raises:
        UserError: it is none, or of another checkpoint.
    """
    dice, of = read_summary(text, source)
    if of != checkpoint:
        raise UserError(f"{source} is of {quoted(of)}, not of {checkpoint}")
    return dice


def read_summary(text: str | bytes, source: str) -> tuple[Dice, str]:
    """Read nnU-Net's ``summary.json``: the Dice of each case and class, and the checkpoint's name.

    Args:
        text: its content.
        source: where it is from, for messages.

    Raises:
        UserError: it is none.
    """
    content = parse_json(text, source)
    try:
        summary = TypeAdapter(_Summary).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = quoted(".".join(map(str, problem["loc"])))
        raise UserError(
            f"{source} is no summary of a validation by nnU-Net: {place}: {problem['msg']}"
        ) from error
    classes = {frozenset(case.metrics) for case in summary.metric_per_case}
    if len(classes) > 1:
        raise UserError(f"{source} is damaged: its cases do not all have the same classes")
    dice = {
        PureWindowsPath(case.reference_file).name: {
            key: _number(metrics.get("Dice")) for key, metrics in case.metrics.items()
        }
        for case in summary.metric_per_case
    }
    return dice, summary.checkpoint


def _number(value: Any) -> float:
    """Return a Dice, NaN of what is none: nnU-Net writes NaN, others null or what JSON lacks."""
    is_finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return float(value) if is_finite else math.nan


def class_keys(dataset: dict[str, Any]) -> dict[str, str]:
    """Name the classes, or regions, that nnU-Net validates: key in ``summary.json`` -> name.

    Args:
        dataset: the content of ``dataset.json``.

    Raises:
        UserError: its labels are no mapping.
    """
    named = dataset.get("labels", {})
    if not isinstance(named, dict):
        raise UserError(
            f"dataset.json: labels {shorten(named, 60)}: a mapping is expected, such as "
            '{"background": 0, "tumour": 1}'
        )
    labels = {n: v for n, v in named.items() if n != "ignore" and v != 0}
    regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    keys = {}
    for name, value in labels.items():
        if isinstance(value, list):
            value = tuple(value) if regions else value[0] if value else None
        keys[str(value)] = str(name)
    return keys
