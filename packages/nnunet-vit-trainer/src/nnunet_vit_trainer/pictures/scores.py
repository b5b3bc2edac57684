"""A validation's Dice, case by case, and the cases that are shown: best, median and worst."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from statistics import fmean
from typing import Any

from .classes import ShownClass


@dataclass(frozen=True)
class Score:
    """How well one case was predicted.

    Attributes:
        case: its name.
        truth: the file that it was compared with, wherever it lay then.
        dice: of each class, in the order of the classes; NaN where the class is in neither mask.
    """

    case: str
    truth: str
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the classes that are there; NaN of a case with none."""
        return mean_of(self.dice)


def scores_of(
    summary: Mapping[str, Any], classes: Sequence[ShownClass], ending: str
) -> list[Score]:
    """List the cases of nnU-Net's ``summary.json``.

    Args:
        summary: its content.
        classes: of the data set.
        ending: of its files, such as ``.nii.gz``.
    """
    scores = []
    for of in summary.get("metric_per_case", []):
        metrics = of.get("metrics", {})
        dice = (metrics.get(shown.key, {}).get("Dice") for shown in classes)
        numbers = tuple(math.nan if value is None else float(value) for value in dice)
        name = PureWindowsPath(of["prediction_file"]).name.removesuffix(ending)
        scores.append(Score(name, of["reference_file"], numbers))
    return scores


def worst_first(scores: Sequence[Score]) -> list[Score]:
    """Sort by the mean Dice; cases with nothing to find, and nothing found, come last."""
    return sorted(scores, key=lambda s: (math.isnan(s.mean), s.mean, s.case))


def chosen(scores: Sequence[Score]) -> list[tuple[str, Score]]:
    """Choose what is shown: the best, the median and the worst case, or all of fewer than three.

    Cases without a Dice are shown where there are no others.
    """
    ranked = [score for score in worst_first(scores) if not math.isnan(score.mean)]
    if not ranked:
        return [("nothing there", score) for score in list(scores)[:3]]
    if len(ranked) == 1:
        return [("only case", ranked[0])]
    ends = [("best", ranked[-1]), ("worst", ranked[0])]
    if len(ranked) > 2:
        ends.insert(1, ("median", ranked[(len(ranked) - 1) // 2]))
    return ends


def text_of(dice: float) -> str:
    """Return a Dice as pictures and reports write it; ``absent`` is a class that is nowhere."""
    return "absent" if math.isnan(dice) else f"{dice:.3f}"


def mean_of(values: Iterable[float]) -> float:
    """Return the mean without NaN; NaN of nothing."""
    known = known_of(values)
    return fmean(known) if known else math.nan


def known_of(values: Iterable[float]) -> list[float]:
    """Leave NaN out."""
    return [value for value in values if not math.isnan(value)]
