"""Means with their spread."""

import math
from collections.abc import Iterable
from statistics import stdev
from typing import NamedTuple

from nnunet_vit_trainer.pictures.scores import known_of as known_of
from nnunet_vit_trainer.pictures.scores import mean_of as mean_of


class Spread(NamedTuple):
    """A mean, and the standard deviation of what it is of.

    Attributes:
        mean: NaN of nothing.
        spread: with n - 1 in the denominator; NaN of fewer than two values.
    """

    mean: float
    spread: float

    def text(self, digits: int = 3, sign: str = "") -> str:
        """Say it: ``0.812 ±0.010``, without a spread where there is none, ``-`` of nothing.

        Args:
            digits: behind the point.
            sign: ``+`` writes it in front of what is not below 0, too.
        """
        if math.isnan(self.mean):
            return "-"
        spread = "" if math.isnan(self.spread) else f" ±{self.spread:.{digits}f}"
        return f"{self.mean:{sign}.{digits}f}{spread}"


def spread_of(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation; NaN is left out.

    Args:
        values: such as the folds' Dice.
    """
    known = known_of(values)
    return Spread(mean_of(known), stdev(known) if len(known) > 1 else math.nan)


def dice_by_class(cases: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the mean over cases for each class, as nnU-Net's ``mean``.

    Args:
        cases: see `folds.Dice`.
    """
    keys = dict.fromkeys(key for dice in cases.values() for key in dice)
    return {key: mean_of(dice.get(key, math.nan) for dice in cases.values()) for key in keys}
