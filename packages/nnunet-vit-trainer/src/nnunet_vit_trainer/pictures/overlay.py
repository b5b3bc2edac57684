"""The overlay sheet of a validation: image, truth and prediction of a few cases, and their Dice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from PIL import Image

from vit_backbone import shorten

from .canvas import POINTS, WIDTH, Page, new_page
from .classes import IGNORED_COLOUR, ShownClass, mask_of
from .scores import Score, text_of
from .sources import Slice

_MARGIN, _GAP, _PANEL, _LEAST, _MOST = 12, 8, 248, 150, 420
_HEAD, _ROW_HEAD, _BAR_ROW = 64, 26, 34
_BARS = _MARGIN + 3 * (_PANEL + _GAP) + 6
_LONGEST_SIDE = 768
_FILL = 0.35


@dataclass(frozen=True)
class Row:
    """One case of a sheet.

    Attributes:
        place: such as ``best``.
        score: its Dice.
        shown: its slice.
    """

    place: str
    score: Score
    shown: Slice


def draw_sheet(
    rows: Sequence[Row], classes: Sequence[ShownClass], ignored: int | None, title: str
) -> bytes:
    """Draw cases below each other, and return the PNG, 1,000 pixels wide.

    Masks are outlined and lightly filled in the colours of their classes, which the bars of the
    Dice beside them name. Images of more than 768 pixels are drawn smaller; what a mask holds there
    is outlined however small it is.

    Args:
        rows: the cases.
        classes: of the data set.
        ignored: the value of what is not annotated, drawn in grey.
        title: of the sheet, a line.
    """
    heights = [_height_of(row.shown) for row in rows]
    total = _HEAD + sum(heights) + len(rows) * (_ROW_HEAD + _GAP) + _MARGIN
    with new_page(total) as page:
        page.text(_MARGIN, 18, shorten(title, 120), size=14, weight="bold")
        for column, name in enumerate(("image", "truth", "prediction")):
            middle = _MARGIN + column * (_PANEL + _GAP) + _PANEL / 2
            page.text(middle, 48, name, ha="center", size=14)
        page.text(_BARS, 48, "Dice of the whole case", size=14)
        top = _HEAD
        for row, height in zip(rows, heights, strict=True):
            _draw_row(page, row, classes, ignored, top, height)
            top += _ROW_HEAD + height + _GAP
        return page.png()


def _height_of(shown: Slice) -> int:
    """Return the pixels that a slice needs in height, within limits, at a panel's width."""
    height, width = shown.truth.shape
    return round(min(max(_PANEL * height * shown.aspect / width, _LEAST), _MOST))


def _draw_row(
    page: Page,
    row: Row,
    classes: Sequence[ShownClass],
    ignored: int | None,
    top: int,
    height: int,
) -> None:
    said = f"   {row.shown.said}" if row.shown.said else ""
    page.text(_MARGIN, top + 12, f"{row.place}:  {shorten(row.score.case, 70)}{said}")
    page.text(_BARS, top + 12, f"mean {text_of(row.score.mean)}", weight="bold")
    top += _ROW_HEAD
    image, step = _smaller(row.shown.image)
    for column, labels in enumerate((None, row.shown.truth, row.shown.prediction)):
        x = _MARGIN + column * (_PANEL + _GAP)
        axes = page.image(image, x, top, _PANEL, height, row.shown.aspect)
        if labels is None:
            continue
        if ignored is not None and column == 1:
            _paint(axes, _any_in_block(labels == ignored, step), IGNORED_COLOUR, fill=0.6)
        # Parts of a region come after it, so that they are seen.
        for shown in sorted(classes, key=lambda c: -len(c.values)):
            _paint(axes, _any_in_block(mask_of(labels, shown), step), shown.colour)
    _draw_bars(page, row.score, classes, ignored is not None, top, height)


def _draw_bars(
    page: Page,
    score: Score,
    classes: Sequence[ShownClass],
    ignores: bool,
    top: int,
    height: int,
) -> None:
    """Draw a bar per class, or of the lowest ones where there is no room for all."""
    room = max(int(height // _BAR_ROW), 2) - ignores
    width = WIDTH - _MARGIN - _BARS
    pairs = list(zip(classes, score.dice, strict=True))
    if len(pairs) > room:
        there = sorted((p for p in pairs if not math.isnan(p[1])), key=lambda p: p[1])
        pairs = there[: room - 1]
    for shown, dice in pairs:
        page.bar(_BARS, top + 18, width, 9, "#e8e8e8")
        if not math.isnan(dice):
            page.bar(_BARS, top + 18, max(width * dice, 2), 9, shown.colour)
        page.text(_BARS, top + 9, shorten(shown.name, 22))
        page.text(_BARS + width, top + 9, text_of(dice), ha="right")
        top += _BAR_ROW
    if len(pairs) < len(classes):
        page.text(_BARS, top + 9, f"the lowest {len(pairs)} of {len(classes)}", style="italic")
        top += _BAR_ROW
    if ignores:
        page.bar(_BARS, top + 3, 14, 12, IGNORED_COLOUR)
        page.text(_BARS + 20, top + 9, "not annotated")


def _paint(axes: Axes, mask: np.ndarray, colour: Any, fill: float = _FILL) -> None:
    """Fill a mask lightly and outline it, in colour on black: it reads on any image."""
    if not mask.any():
        return
    pixels = np.zeros((*mask.shape, 4))
    pixels[mask] = to_rgba(colour, fill)
    axes.imshow(pixels, interpolation="nearest", aspect=axes.get_aspect())
    if not mask.all() and min(mask.shape) > 1:  # an outline needs two pixels each way
        for width, ink in ((2.6, "black"), (1.5, colour)):
            axes.contour(mask, levels=[0.5], colors=[ink], linewidths=width * POINTS)


def _smaller(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an image of at most 768 pixels a side, and by how much it is smaller."""
    step = math.ceil(max(image.shape[:2]) / _LONGEST_SIDE)
    return np.asarray(Image.fromarray(image).reduce(step)) if step > 1 else image, step


def _any_in_block(mask: np.ndarray, step: int) -> np.ndarray:
    """Make a mask smaller so that nothing of it is lost: a block is in it if a pixel of it is."""
    if step == 1:
        return mask
    rows, columns = (math.ceil(side / step) * step for side in mask.shape)
    padded = np.zeros((rows, columns), dtype=bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    blocks = padded.reshape(rows // step, step, columns // step, step)
    return np.asarray(blocks.any(axis=(1, 3)))
