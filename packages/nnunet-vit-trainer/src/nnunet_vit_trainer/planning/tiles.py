"""Tiles of whole patches, and what nnU-Net's own tile costs a ViT beside them. Sides in pixels."""

import math
from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width in pixels."""


def patches_of(size: Sequence[float], patch: Size) -> Size:
    """Return how many rows and columns of patches it takes to hold a size."""
    rows, columns = (math.ceil(side / p) for side, p in zip(size, patch, strict=True))
    return rows, columns


def padded(size: Sequence[float], patch: Size) -> Size:
    """Return the smallest size of whole patches that holds a size: no tile wastes fewer tokens."""
    (rows, columns), (height, width) = patches_of(size, patch), patch
    return rows * height, columns * width


def largest_tile(image: Sequence[float], patch: Size, most_pixels: float) -> Size | None:
    """Return the tile of whole patches that holds an image, or what fits of it.

    As nnU-Net does, the side that is larger beside the image is cut until it fits.

    Args:
        image: its height and width.
        patch: the backbone's.
        most_pixels: that a tile may have.

    Returns:
        ``None`` where not even one patch fits.
    """
    tile = list(padded(image, patch))
    while math.prod(tile) > most_pixels:
        longest = max((0, 1), key=lambda axis: (tile[axis] > patch[axis], tile[axis] / image[axis]))
        if tile[longest] == patch[longest]:
            return None
        tile[longest] -= patch[longest]
    return tile[0], tile[1]


def holds(tile: Sequence[int], image: Sequence[float]) -> bool:
    """Tell whether a tile holds an image."""
    return all(side >= of for side, of in zip(tile, image, strict=True))


def padding(tile: Sequence[int], patch: Size) -> float:
    """Return what the network adds to a tile to have whole patches, as a share of its pixels."""
    return math.prod(padded(tile, patch)) / math.prod(tile) - 1


def wasted_tokens(tile: Sequence[int], image: Sequence[float], patch: Size) -> int:
    """Count the tokens of a tile beyond those that it takes to hold what is in it of an image.

    Args:
        tile: of any size; the network pads it to whole patches.
        image: its height and width.
        patch: the backbone's.
    """
    seen = [min(side, of) for side, of in zip(tile, image, strict=True)]
    return math.prod(patches_of(tile, patch)) - math.prod(patches_of(seen, patch))
