"""Dice of predicted shares: of patches, and of pixels; folds put together.

h, w: patches of a tile, H, W: its pixels, K: labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from nnunet_vit_trainer.probing.patches.tiles import UNKNOWN
from nnunet_vit_trainer.results.spread import Spread, mean_of, spread_of
from vit_backbone.segmentation.geometry import fit_to_image

DiceOfClasses = dict[str, float]
"""Name of a class -> Dice; NaN where it does not count."""


class Score(NamedTuple):
    """The Dice of a probe.

    Attributes:
        folds: the mean over classes of each fold.
        classes: of each class, the mean over folds.
    """

    folds: list[float]
    classes: DiceOfClasses

    @property
    def mean(self) -> Spread:
        """The mean over folds, and their spread."""
        return spread_of(self.folds)


def put_together(folds: Sequence[DiceOfClasses]) -> Score:
    """Put the Dice of folds together; classes that do not count in a fold are left out of it."""
    names = list(dict.fromkeys(name for fold in folds for name in fold))
    return Score(
        [mean_of(fold.values()) for fold in folds],
        {name: mean_of(fold.get(name, math.nan) for fold in folds) for name in names},
    )


def shares_of_pixels(shares: np.ndarray, patch_size: int, size: Sequence[int]) -> np.ndarray:
    """Resample predicted shares of patches to pixels, (H, W, K), as a linear head's logits are.

    Args:
        shares: (h, w, K).
        patch_size: side of a patch in pixels.
        size: (H, W).
    """
    maps = torch.from_numpy(shares).permute(2, 0, 1)[None]
    padded = [side * patch_size for side in shares.shape[:2]]
    return fit_to_image(maps, padded, size)[0].permute(1, 2, 0).numpy()


def confusion_of(truth: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Count pixels by true and predicted label, (K, K); those without a label do not count."""
    known = truth != UNKNOWN
    pairs = truth[known].astype(np.int64) * count + predicted[known]
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def dice_of_pixels(
    confusion: np.ndarray, positions: Mapping[str, Sequence[int]], counted: Sequence[str]
) -> DiceOfClasses:
    """Return the Dice of each class, or region of several labels, over all pixels.

    Args:
        confusion: see `confusion_of`.
        positions: of each class, those of its labels.
        counted: the classes that count; others are NaN.
    """
    dice = dict.fromkeys(positions, math.nan)
    for name in counted:
        of = list(positions[name])
        both = confusion[np.ix_(of, of)].sum()
        dice[name] = float(2 * both / (confusion[of].sum() + confusion[:, of].sum()))
    return dice


def dice_of_patches(
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    positions: Mapping[str, Sequence[int]],
    counted: Sequence[str],
) -> DiceOfClasses:
    """Return the Dice of shares: twice what both have by what each has, 1 where they are equal.

    Args:
        truth: (N, K), of patches.
        predicted: likewise.
        weights: (N,), what a patch counts.
        positions: of each class, those of its labels.
        counted: the classes that count; others are NaN.
    """
    dice = dict.fromkeys(positions, math.nan)
    for name in counted:
        of = list(positions[name])
        true, found = truth[:, of].sum(axis=1), predicted[:, of].sum(axis=1)
        both = (weights * np.minimum(true, found)).sum()
        dice[name] = float(2 * both / (weights * (true + found)).sum())
    return dice
