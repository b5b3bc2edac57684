"""Tiles of preprocessed cases: the pixels that a training would see, and the label of each.

A tile has the size that was planned. An image that is smaller is padded as nnU-Net pads it before
a prediction; what is not image, or not annotated, has no label here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from vit_backbone import UserError, reason_of

from .sampling import even_shares

UNKNOWN = -1
"""Of pixels that are not annotated, or outside of the image."""

_OUTSIDE = -1  # nnU-Net's, of what it cropped an image to: background in a training


@dataclass(frozen=True)
class Tile:
    """A tile of a slice.

    Attributes:
        case: its name.
        name: to show, with the slice of a volume.
        image: (C, H, W), normalised by nnU-Net.
        labels: (H, W), positions in `Labels.values`, or `UNKNOWN`.
        aspect: a pixel's height by its width.
    """

    case: str
    name: str
    image: np.ndarray
    labels: np.ndarray
    aspect: float


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        values: in masks, background among them, in rising order.
        ignored: of what is not annotated.
    """

    values: tuple[int, ...]
    ignored: int | None

    def positions_of(self, mask: np.ndarray, case: str) -> np.ndarray:
        """Turn a preprocessed mask into positions in `values`, or `UNKNOWN`.

        Raises:
            UserError: a value that dataset.json does not name.
        """
        mask = np.where(mask == _OUTSIDE, 0, mask).astype(np.int16)
        found = np.full(mask.shape, UNKNOWN, dtype=np.int16)
        for position, value in enumerate(self.values):
            found[mask == value] = position
        named = found != UNKNOWN
        if self.ignored is not None:
            named |= mask == self.ignored
        if not named.all():
            raise UserError(
                f"case {case}: its mask holds {mask[~named][0]}, which is no label of "
                "dataset.json; mend the mask, and preprocess anew"
            )
        return found


def read_tiles(
    dataset: Any,
    cases: Sequence[str],
    most: int,
    tile_size: Sequence[int],
    aspect: float,
    labels: Labels,
    rng: np.random.Generator,
    on_case: Callable[[], None] = lambda: None,
) -> list[Tile]:
    """Read tiles of cases, as evenly shared as can be; see `choose`.

    Args:
        dataset: nnU-Net's of the preprocessed cases.
        cases: their names.
        most: tiles of all of them together.
        tile_size: (height, width).
        aspect: a pixel's height by its width, as the plans have it.
        labels: of the data set.
        rng: to draw by.
        on_case: called after each case.

    Raises:
        UserError: a case that cannot be read, has labels that dataset.json does not name, or
            pixels that are no numbers.
    """
    tiles = []
    for case, count in zip(cases, even_shares([most] * len(cases), most), strict=True):
        try:
            data, mask, *_ = dataset.load_case(case)
            known = labels.positions_of(np.asarray(mask[0]), case)
            tiles += _tiles_of(case, data, known, aspect, tile_size, count, rng)
        except UserError:
            raise
        except Exception as error:  # whatever a reader of arrays raises
            raise UserError(f"case {case} cannot be read: {reason_of(error)}") from error
        on_case()
    return tiles


def _tiles_of(
    case: str,
    data: Any,
    known: np.ndarray,
    aspect: float,
    tile_size: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> list[Tile]:
    """Cut so many tiles out of a case."""
    height, width = tile_size
    padded = _padded(known, tile_size, constant_values=UNKNOWN)
    steps = compute_steps_for_sliding_window(padded.shape[1:], tuple(tile_size), 1.0)
    places = [(z, y, x) for z in range(len(padded)) for y in steps[0] for x in steps[1]]
    held = [
        np.bincount(padded[z, y : y + height, x : x + width].ravel() - UNKNOWN).nonzero()[0]
        + UNKNOWN
        for z, y, x in places
    ]
    tiles = []
    for chosen in choose([{*map(int, h)} for h in held], count, rng):
        z, y, x = places[chosen]
        image = _padded(np.asarray(data[:, z], dtype=np.float32), tile_size)
        image = image[:, y : y + height, x : x + width]
        if not np.isfinite(image).all():
            raise UserError(f"case {case} has NaN or infinite pixels; mend it, preprocess anew")
        name = f"{case}, slice {z + 1} of {len(padded)}" if len(padded) > 1 else case
        cut = padded[z, y : y + height, x : x + width]
        tiles.append(Tile(case, name, image, cut, aspect))
    return tiles


def _padded(values: np.ndarray, size: Sequence[int], **options: int) -> np.ndarray:
    return np.asarray(pad_nd_image(values, tuple(size), kwargs=options))


def choose(held: Sequence[set[int]], count: int, rng: np.random.Generator) -> list[int]:
    """Choose tiles of a case: one for each class, as long as the number lasts, the rest by chance.

    Which class comes first is by chance too, so that over many cases each of them is found; tiles
    without any label are never chosen.

    Args:
        held: the labels in each tile.
        count: of tiles to choose.
        rng: to draw by.
    """
    left = [int(i) for i in rng.permutation(len(held)) if held[i] - {UNKNOWN}]
    chosen: list[int] = []
    for label in rng.permutation(sorted(set().union(*held) - {UNKNOWN, 0})):
        if len(chosen) < count and not any(label in held[i] for i in chosen):
            chosen.append(next(i for i in left if label in held[i]))
            left.remove(chosen[-1])
    return sorted(chosen + left[: max(0, count - len(chosen))])
