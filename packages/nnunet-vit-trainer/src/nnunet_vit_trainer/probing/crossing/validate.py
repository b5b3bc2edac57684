"""Cross-validation over cases: probes fitted on the patches of some, scored on those of others.

h, w: patches of a tile, D: width of a feature, K: labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nnunet_vit_trainer.probing.patches.shares import shares_of
from nnunet_vit_trainer.probing.patches.tiles import Tile

from .classify import (
    MOST_COMPARED,
    MOST_NEIGHBOURS,
    MOST_TRAINED,
    STRENGTHS,
    LinearProbe,
    fit_linear,
    loss_of,
    patches_of,
    vote,
)
from .folds import Fold
from .scores import (
    DiceOfClasses,
    Score,
    confusion_of,
    dice_of_patches,
    dice_of_pixels,
    put_together,
    shares_of_pixels,
)

# A label that never fills half of a patch would win no pixel. Shares are divided by the root of its
# frequency: halfway between as many pixels right as can be (0) and as many of each label (1). On
# the given data it is the best of 0, 0.5 and 1; chosen by fitted tiles it overfits.
_RARE_WIN = 0.5
_LEAST = 1e-6


class Scores(NamedTuple):
    """What probes on one kind of features reach.

    Attributes:
        pixels: the linear probe's Dice of pixels, its shares resampled to them.
        patches: its Dice of shares.
        neighbours: the same of the nearest neighbours' vote.
    """

    pixels: Score
    patches: Score
    neighbours: Score


def counted_classes(
    tiles: Sequence[Tile], folds: Sequence[Fold], positions: Mapping[str, Sequence[int]]
) -> list[list[str]]:
    """Return the classes that count in each fold: those that both of its parts hold.

    Args:
        tiles: that were read.
        folds: of their cases.
        positions: of each class, those of its labels.
    """
    held: dict[str, set[int]] = {}
    for tile in tiles:
        held.setdefault(tile.case, set()).update(map(int, np.unique(tile.labels)))

    def has(cases: Sequence[str], name: str) -> bool:
        return any(held.get(case, set()) & {*positions[name]} for case in cases)

    return [
        [name for name in positions if has(fold.train, name) and has(fold.test, name)]
        for fold in folds
    ]


def cross_validate(
    features: Sequence[np.ndarray],
    tiles: Sequence[Tile],
    patch_size: int,
    folds: Sequence[Fold],
    counted: Sequence[Sequence[str]],
    positions: Mapping[str, Sequence[int]],
    count: int,
    seed: int = 0,
) -> Scores:
    """Fit and score both probes in each fold.

    Args:
        features: of each tile (h, w, D).
        tiles: see there.
        patch_size: side of a patch in pixels.
        folds: of the tiles' cases.
        counted: the classes that count in each; a fold without any is left out.
        positions: of each class, those of its labels.
        count: K.
        seed: of the patches that are drawn.
    """
    shares = [shares_of(tile.labels, patch_size, count) for tile in tiles]
    patches = [(of, label.shares, label.known) for of, label in zip(features, shares, strict=True)]
    found: list[tuple[DiceOfClasses, ...]] = []
    for number, (fold, names) in enumerate(zip(folds, counted, strict=True)):
        if not names:
            found.append(({name: math.nan for name in positions},) * 3)
            continue
        train, test = ([i for i, t in enumerate(tiles) if t.case in {*part}] for part in fold)
        rng = np.random.default_rng([seed, number])
        fitted = patches_of(*_columns(patches, train), MOST_TRAINED, rng)
        probe = fit_linear(fitted, _strength(patches, [(i, tiles[i].case) for i in train], rng))
        weights = np.maximum(fitted.frequencies, _LEAST) ** -_RARE_WIN
        confusion = _confusion(probe, weights, patches, tiles, test, patch_size)
        truth = patches_of(*_columns(patches, test), MOST_NEIGHBOURS, rng)
        near = patches_of(*_columns(patches, train), MOST_NEIGHBOURS, rng)
        scored = (truth.weights, positions, names)
        found.append(
            (
                dice_of_pixels(confusion, positions, names),
                dice_of_patches(truth.shares, probe.shares(truth.features), *scored),
                dice_of_patches(truth.shares, vote(near, truth.features), *scored),
            )
        )
    return Scores(*(put_together(folds) for folds in zip(*found, strict=True)))


def _columns(
    patches: Sequence[tuple[np.ndarray, ...]], chosen: Sequence[int]
) -> list[list[np.ndarray]]:
    return [[patches[i][column] for i in chosen] for column in range(3)]


def _strength(
    patches: Sequence[tuple[np.ndarray, ...]],
    train: Sequence[tuple[int, str]],
    rng: np.random.Generator,
) -> float:
    """Choose how strongly a probe is fitted, by a fifth of the training cases held back.

    One strength for all would favour some backbones: what is best changes with the features.

    Args:
        patches: features, shares and known of each tile.
        train: positions of the tiles that are fitted on, and their cases.
        rng: to draw by.
    """
    cases = rng.permutation(sorted({case for _, case in train}))
    held = {*cases[: math.ceil(len(cases) / 5)].tolist()}
    parts = [[i for i, case in train if (case in held) == inner] for inner in (False, True)]
    middle = STRENGTHS[len(STRENGTHS) // 2]
    if not all(parts):
        return middle
    fitted, asked = (patches_of(*_columns(patches, part), MOST_COMPARED, rng) for part in parts)
    if np.count_nonzero(fitted.shares.any(axis=0)) < 2:
        return middle
    best, least = middle, math.inf
    for strength in STRENGTHS:
        loss = loss_of(fit_linear(fitted, strength), asked)
        if loss >= least:  # from here on it overfits more and more
            break
        best, least = strength, loss
    return best


def _confusion(
    probe: LinearProbe,
    weights: np.ndarray,
    patches: Sequence[tuple[np.ndarray, ...]],
    tiles: Sequence[Tile],
    chosen: Sequence[int],
    patch_size: int,
) -> np.ndarray:
    """Predict tiles, and count their pixels by true label and by that of the largest share.

    Args:
        probe: fitted.
        weights: (K,), that shares are multiplied by first.
        patches: features, shares and known of each tile.
        tiles: see there.
        chosen: positions of the tiles.
        patch_size: side of a patch in pixels.
    """
    count = probe.count
    confusion = np.zeros((count, count), dtype=np.int64)
    for i in chosen:
        labels = tiles[i].labels
        pixels = shares_of_pixels(probe.shares(patches[i][0]), patch_size, labels.shape)
        confusion += confusion_of(labels, (pixels * weights).argmax(axis=-1), count)
    return confusion
