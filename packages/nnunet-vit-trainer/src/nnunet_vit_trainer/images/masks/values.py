"""The values in a mask: numbers, or colours, and how many pixels have each."""

from dataclasses import dataclass

import numpy as np

from nnunet_vit_trainer.images.reading.pixels import Pixels, shown
from vit_backbone import UserError

MOST = 256
"""Values that a mask may have; those that have more hold no classes."""

_GREY = 0x010101
_MOST_NOISE = 16
"""Between the three channels of a grey mask, where JPEG smeared them."""


@dataclass(frozen=True)
class Values:
    """What a mask holds.

    Attributes:
        pixels: how many there are of each value: numbers, or colours 0xRRGGBB.
        coloured: whether they are colours, of which at least one is not grey.
        palette: the colours that the values are shown in, where there is a palette.
    """

    pixels: dict[int, int]
    coloured: bool
    palette: dict[int, int]


def values_of(mask: Pixels, threshold: int | None = None) -> tuple[np.ndarray, bool]:
    """Return a mask as one number for each pixel, and whether these are colours 0xRRGGBB.

    Args:
        mask: of one channel, or of three, as many masks are saved.
        threshold: pixels as bright as this become 1, the others 0; ``None``: all are as they are.

    Raises:
        UserError: other channels, values that are no whole numbers, or colours with a threshold.
    """
    values = mask.values if threshold is None else shown(mask)
    if len(values) not in (1, 3):
        raise UserError(f"has {len(values)} channels; one is expected in a mask, or a colour")
    noise = 0 if threshold is None else _MOST_NOISE
    coloured = len(values) == 3 and bool((np.ptp(values.astype(np.int32), axis=0) > noise).any())
    if threshold is not None:
        if coloured:
            raise UserError("has colours; --threshold is for masks of grey values")
        return (values.mean(axis=0) >= threshold).astype(np.uint8), False
    if coloured:
        if values.dtype != np.uint8:
            raise UserError("has colours of more than 8 bits; save it as RGB of 8")
        return _packed(values), True
    return _whole(values[0]), False


def count(mask: Pixels, threshold: int | None = None) -> Values:
    """Count the values of a mask.

    Args:
        mask: see `values_of`.
        threshold: see `values_of`.

    Raises:
        UserError: see `values_of`; or so many values that they are no classes.
    """
    numbers, coloured = values_of(mask, threshold)
    if numbers.dtype == np.uint8:
        counts = np.bincount(numbers.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(numbers, return_counts=True)
    if len(found) > MOST:
        what, why = ("colours", "smoothed or JPEG?") if coloured else ("values", "single objects?")
        raise UserError(
            f"has {len(found):,} different {what} ({why}); a mask has one for each class; "
            f"--threshold {128 if coloured else 1} makes two classes of grey values"
        )
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    palette = {} if threshold is not None else (mask.palette or {})
    return Values(pixels, coloured, {value: palette[value] for value in pixels if value in palette})


def as_colours(values: Values) -> dict[int, int]:
    """Return how many pixels there are of each colour: grey values are grey.

    Args:
        values: numbers, or colours already.
    """
    if values.coloured:
        return values.pixels
    pixels: dict[int, int] = {}
    for value, n in values.pixels.items():
        colour = values.palette.get(value, value * _GREY)
        pixels[colour] = pixels.get(colour, 0) + n
    return pixels


def numbers_of(mask: Pixels, threshold: int | None, *, by_colour: bool) -> np.ndarray:
    """Return a mask as one number for each pixel: values, or colours 0xRRGGBB.

    Args:
        mask: see `values_of`.
        threshold: see `values_of`.
        by_colour: grey values and those of a palette become colours.
    """
    numbers, coloured = values_of(mask, threshold)
    if coloured or not by_colour:
        return numbers
    if mask.palette:
        return _packed(shown(mask))
    return numbers.astype(np.int64) * _GREY


def say(value: int, *, by_colour: bool) -> str:
    """Say a value, or a colour as ``#rrggbb``."""
    return f"#{value:06x}" if by_colour else str(value)


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = colours.astype(np.int64)
    return red << 16 | green << 8 | blue


def _whole(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return values
    whole = values.astype(np.int64) if np.isfinite(values).all() else values
    if (whole != values).any() or whole is values:
        raise UserError("has values that are no whole numbers; a mask has one for each class")
    return whole
