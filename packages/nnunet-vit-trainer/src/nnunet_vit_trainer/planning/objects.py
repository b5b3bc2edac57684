"""How wide the objects of each class are, told from masks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

# Neighbours in the slice, corners too; a 2D network sees no others.
_IN_SLICE = np.zeros((3, 3, 3), bool)
_IN_SLICE[1] = True
_SLICES = 16
"""Slices of a volume that are looked at."""


def classes_of(labels: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the values of each class or region of a ``dataset.json``.

    Args:
        labels: its own; background and the ignore label are no classes.
    """
    lists = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    return {
        name: values
        for name, values in ((name, [*map(int, values)]) for name, values in lists.items())
        if name != "ignore" and any(values)
    }


def areas_in(mask: np.ndarray, values: Sequence[int], ignore: int | None = None) -> np.ndarray:
    """Return the areas in pixels of a class's objects: what hangs together in a slice.

    Args:
        mask: (slices, H, W); of many slices with the class, 16 are looked at.
        values: of the class.
        ignore: value of what is not annotated. An object beside it may be larger than what is seen
            of it, and is left out.
    """
    of_class = np.isin(mask, values)
    filled = np.flatnonzero(of_class.any(axis=(1, 2)))
    picked = np.linspace(0, len(filled) - 1, min(len(filled), _SLICES)).astype(int)
    objects, number = ndimage.label(of_class[filled[picked]], _IN_SLICE)
    areas = np.bincount(objects.ravel(), minlength=number + 1)
    if ignore is not None:
        beside = ndimage.binary_dilation(mask[filled[picked]] == ignore, _IN_SLICE)
        areas[objects[beside]] = 0
    return areas[1:][areas[1:] > 0]


def typical_width(areas: Iterable[float]) -> float | None:
    """Return the diameter of a circle as large as the object that a class's median pixel lies in.

    A median over objects would be that of specks, of which masks have many.

    Args:
        areas: of objects.

    Returns:
        ``None`` of no objects; in the unit whose square the areas have.
    """
    areas = np.sort(np.fromiter(areas, float))
    if not len(areas):
        return None
    pixels = np.cumsum(areas)
    median = areas[np.searchsorted(pixels, pixels[-1] / 2)]
    return 2 * math.sqrt(median / math.pi)
