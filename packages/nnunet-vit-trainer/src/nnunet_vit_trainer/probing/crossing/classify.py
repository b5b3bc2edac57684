"""A linear probe and a nearest-neighbour vote on patches: features in, shares of labels out.

N: patches, D: width of a feature, K: labels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from nnunet_vit_trainer.probing.patches.sampling import even_shares
from vit_backbone import UserError

MOST_TRAINED = 10_000
"""Patches that a linear probe is fitted on."""
MOST_COMPARED = 3_000
"""Patches by which strengths of the fit are compared."""
MOST_NEIGHBOURS = 5_000
"""Patches that neighbours are looked for among, and whose neighbours are looked for."""

_NEIGHBOURS = 20
# Of the fit against the penalty, on features of variance 1: `fit_linear` is told which.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
_ITERATIONS = 200
_LEAST = 1e-4  # share that a loss takes for none


@dataclass(frozen=True)
class Patches:
    """Patches of many tiles.

    Attributes:
        features: (N, D), float32.
        shares: (N, K), of the labels, each row 1 together.
        weights: (N,), what a patch counts.
    """

    features: np.ndarray
    shares: np.ndarray
    weights: np.ndarray

    @property
    def frequencies(self) -> np.ndarray:
        """The share of each label in all patches, (K,)."""
        return np.average(self.shares, axis=0, weights=self.weights)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear probe; `fit_linear` makes it.

    Attributes:
        scaler: of the features.
        model: of those labels that it was fitted on.
        count: K.
    """

    scaler: StandardScaler
    model: LogisticRegression
    count: int

    def shares(self, features: np.ndarray) -> np.ndarray:
        """Predict the share of each label, (..., D) -> (..., K)."""
        flat = features.reshape(-1, features.shape[-1]).astype(np.float32)
        found = np.zeros((len(flat), self.count), dtype=np.float32)
        found[:, self.model.classes_] = self.model.predict_proba(self.scaler.transform(flat))
        return found.reshape(*features.shape[:-1], self.count)


def fit_linear(patches: Patches, strength: float) -> LinearProbe:
    """Fit logistic regression to shares: each label of a patch counts by its share.

    Args:
        patches: see there.
        strength: one of `STRENGTHS`.

    Raises:
        UserError: all of them hold one and the same label.
    """
    if np.count_nonzero(patches.shares.any(axis=0)) < 2:
        raise UserError("the training cases of a fold hold a single label: nothing to tell apart")
    scaler = StandardScaler().fit(patches.features)
    rows, labels = patches.shares.nonzero()
    weights = patches.weights[rows] * patches.shares[rows, labels]
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are bounded on purpose
        model.fit(scaler.transform(patches.features)[rows], labels, sample_weight=weights)
    return LinearProbe(scaler, model, patches.shares.shape[1])


def loss_of(probe: LinearProbe, patches: Patches) -> float:
    """Return the mean cross-entropy of predicted shares, by which strengths are compared.

    Args:
        probe: fitted.
        patches: that it was not fitted on.
    """
    logs = np.log(np.maximum(probe.shares(patches.features), _LEAST))
    return float(np.average(-(patches.shares * logs).sum(axis=1), weights=patches.weights))


def vote(train: Patches, features: np.ndarray) -> np.ndarray:
    """Return the mean shares of the nearest patches by cosine distance, (N, K).

    Args:
        train: to look for neighbours among.
        features: (N, D).
    """
    count = min(_NEIGHBOURS, len(train.features))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
    found = search.fit(train.features).kneighbors(features, return_distance=False)
    weights = train.weights[found]
    votes = (train.shares[found] * weights[..., None]).sum(axis=1)
    return votes / weights.sum(axis=1, keepdims=True)


def draw(
    shares: np.ndarray, known: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw patches so that the rarest label is not missed, and weigh them by how many they are.

    Patches are sorted by the rarest label in them; from each sort as many are drawn. A patch counts
    for those of its sort that were not drawn, so the frequencies of the labels stay what they are.

    Args:
        shares: (N, K).
        known: (N,), the share of a patch's pixels that have a label.
        most: how many to draw.
        rng: to draw by.

    Returns:
        Positions, and the weight of each.
    """
    frequencies = (shares * known[:, None]).sum(axis=0)
    rarity = frequencies.argsort(kind="stable")
    rarest = rarity[(shares[:, rarity] > 0).argmax(axis=1)]
    sorts = [np.flatnonzero((rarest == label) & (known > 0)) for label in np.unique(rarest)]
    sorts = [sort for sort in sorts if len(sort)]
    drawn, weights = [], []
    for sort, count in zip(sorts, even_shares([*map(len, sorts)], most), strict=True):
        if count:
            drawn.append(rng.permutation(sort)[:count])
            weights.append(known[drawn[-1]] * len(sort) / count)
    return np.concatenate(drawn), np.concatenate(weights)


def patches_of(
    tokens: Sequence[np.ndarray],
    shares: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    most: int,
    rng: np.random.Generator,
) -> Patches:
    """Draw patches from tiles, see `draw`.

    Args:
        tokens: of each tile (h, w, D).
        shares: of each tile (h, w, K).
        known: of each tile (h, w).
        most: how many.
        rng: to draw by.
    """
    flat_shares = np.concatenate([of.reshape(-1, of.shape[-1]) for of in shares])
    flat_known = np.concatenate([of.ravel() for of in known])
    drawn, weights = draw(flat_shares, flat_known, most, rng)
    ends = np.cumsum([of.size for of in known])
    tile_of = np.searchsorted(ends, drawn, side="right")
    begins = ends - [of.size for of in known]
    features = np.stack(
        [
            tokens[tile].reshape(-1, tokens[tile].shape[-1])[at - begins[tile]]
            for tile, at in zip(tile_of, drawn, strict=True)
        ]
    )
    return Patches(features.astype(np.float32), flat_shares[drawn], weights.astype(np.float64))
