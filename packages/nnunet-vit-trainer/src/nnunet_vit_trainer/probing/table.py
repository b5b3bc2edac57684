"""The table of a probe: a row per backbone, patch size, input normalisation and taps."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .crossing.validate import Scores

MODEL_KEYS = (
    "backbone",
    "backbone_size",
    "checkpoint_path",
    "pretrained",
    "patch_size",
    "layer_indices",
    "input_norm",
)
"""Of a config's section ``model``: what a row says."""


@dataclass(frozen=True)
class Row:
    """What was tried, and what it reached.

    Attributes:
        name: of the candidate.
        patch: side of a patch in pixels; ``None`` where it failed before that was known.
        taps: the word for them.
        input_norm: the choice, as in a config.
        model: `MODEL_KEYS` of a config's section.
        sha256: of the weight file; empty without one.
        blocks: that are tapped, from 0.
        embed_dim: width of a token.
        input_norm_said: what is done to the images.
        seconds: of a tile.
        scores: ``None`` where it failed.
        failed: why, in one line.
    """

    name: str
    patch: int | None
    taps: str
    input_norm: str
    model: dict[str, Any]
    sha256: str = ""
    blocks: Sequence[int] = ()
    embed_dim: int = 0
    input_norm_said: str = ""
    seconds: float = math.nan
    scores: Scores | None = None
    failed: str = ""

    @property
    def dice(self) -> float:
        """What rows are ranked by: the linear probe's mean Dice of pixels."""
        return math.nan if self.scores is None else self.scores.pixels.mean.mean


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Sort rows, the best first, what failed last; equal ones stay in their order."""
    return sorted(rows, key=lambda row: (row.scores is None, -row.dice if row.scores else 0.0))


def as_data(row: Row, rank: int) -> dict[str, Any]:
    """Return a row as JSON takes it; NaN is ``None``.

    Args:
        row: see there.
        rank: from 1; what failed has none.
    """
    data = asdict(row) | {"rank": None if row.scores is None else rank}
    data["random"] = row.model.get("pretrained") is False
    if row.scores is not None:
        scores = row.scores
        kinds = {"pixels": scores.pixels, "patches": scores.patches, "k_nn": scores.neighbours}
        for kind, score in kinds.items():
            data[kind] = {
                "mean": score.mean.mean,
                "spread": score.mean.spread,
                "folds": score.folds,
                "classes": score.classes,
            }
    del data["scores"]
    return _without_nan(data)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
