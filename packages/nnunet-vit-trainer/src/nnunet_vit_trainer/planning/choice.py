"""Choose spacing, tile and batch of a ViT's plan. Plain numbers: memory is counted elsewhere.

In this order: a tile that holds the whole image, finer pixels while that still holds, and the batch
from what is left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .tiles import Size, holds, largest_tile, padded

WIDE = 3
"""Patches that an object should be wide: from 2 * sqrt(2) = 2.83 on, a disc holds a whole patch
wherever it lies, so that at least one token sees nothing else."""

FINEST = 2.0
"""Pixels are made finer up to this factor: interpolation adds no detail, and data grow by its
square."""

WORTH = 1.1
"""A smaller factor is not worth the resampling."""

Bound = Literal["width", "finest", "tile"]
"""What keeps pixels from being finer: objects are wide enough, a whole patch more along the longer
side would be beyond `FINEST`, or no tile would hold the image any more."""


@dataclass(frozen=True)
class Given:
    """What a plan is chosen for.

    Attributes:
        image: height and width of the median image in nnU-Net's own spacing.
        patch: the backbone's, in pixels.
        width: of the smallest class's typical object in such pixels; ``None`` where none is known.
        memory: pixels of a batch that memory is enough for.
        pixels: of the whole data set.
        tile: the config's own, which is kept; ``None`` leaves it to the plan.
        batch: the config's own, likewise.
        fewest: tiles of a batch that a plan has at least; nnU-Net's 2.
        share: of the data set that a batch may be, where it is more tiles than those; its 5 %.
    """

    image: Sequence[float]
    patch: Size
    width: float | None
    memory: float
    pixels: float
    tile: Size | None = None
    batch: int | None = None
    fewest: int = 2
    share: float = 0.05


class Choice(NamedTuple):
    """A plan.

    Attributes:
        factor: by which pixels are finer than nnU-Net's own; 1 keeps them.
        bound: what keeps it from being larger.
        side: the longer side of the median image in these pixels; 0 where the factor is 1.
        tile: height and width in these pixels.
        batch: tiles.
        fitting: tiles that memory is enough for.
        allowed: tiles that are the share of the data set that a batch may be.
    """

    factor: float
    bound: Bound
    side: int
    tile: Size
    batch: int
    fitting: int
    allowed: int


def resampled(image: Sequence[float], factor: float) -> list[float]:
    """Return an image's height and width in finer pixels, as nnU-Net rounds them.

    Args:
        image: in its own pixels; they are not rounded where they stay.
        factor: by which pixels are finer.
    """
    return [*image] if factor == 1 else [float(round(side * factor)) for side in image]


def wanted_factor(given: Given) -> float:
    """Return by which factor pixels should be finer for objects to be `WIDE` patches wide."""
    if given.width is None:
        return 1.0
    return min(max(WIDE * max(given.patch) / given.width, 1.0), FINEST)


def choose(given: Given) -> Choice | None:
    """Choose a plan.

    Args:
        given: see there.

    Returns:
        ``None`` where memory is not enough for a batch of tiles of one patch.
    """
    side, bound = _side(given)
    factor = side / max(given.image) if side else 1.0
    image = resampled(given.image, factor)
    tile = given.tile or largest_tile(image, given.patch, given.memory / _fewest(given))
    if tile is None:
        return None
    fitting = int(given.memory / math.prod(tile))
    # As nnU-Net rounds it.
    allowed = round(given.pixels * factor**2 * given.share / math.prod(tile))
    batch = given.batch or max(min(fitting, allowed), given.fewest)
    return Choice(factor, bound, side, tile, batch, fitting, allowed)


def _side(given: Given) -> tuple[int, Bound]:
    """Return the longer side of the median image in finer pixels, 0 where they stay as they are.

    It is a whole number of patches: only the other side is padded.
    """
    longest = max(given.image)
    patch = given.patch[list(given.image).index(longest)]
    wanted = wanted_factor(given)
    enough, finest = math.ceil(wanted * longest / patch), int(FINEST * longest / patch)
    if wanted < WORTH:
        return 0, "width"
    bound: Bound = "width" if wanted < FINEST and enough <= finest else "finest"
    for patches in range(min(enough, finest), 0, -1):
        factor = patches * patch / longest
        if factor < WORTH:
            break
        if _held_by_a_tile(resampled(given.image, factor), given):
            return patches * patch, bound
        bound = "tile"
    return 0, bound


def _held_by_a_tile(image: Sequence[float], given: Given) -> bool:
    """Tell whether memory is enough for tiles that hold the image, or the config's tile does."""
    if given.tile is not None:
        return holds(given.tile, image)
    return math.prod(padded(image, given.patch)) * _fewest(given) <= given.memory


def _fewest(given: Given) -> int:
    return given.batch or given.fewest
