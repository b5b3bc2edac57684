"""A white page 1,000 pixels wide, on which things are put by pixels.

matplotlib's figures are used without pyplot, which would keep each of them alive.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

WIDTH = 1000
_DPI = 100
POINTS = 72 / _DPI
"""A pixel in points, in which matplotlib measures letters and lines."""


class Page:
    """A page; x and y are pixels from the left and the top.

    Args:
        height: in pixels.
    """

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def axes(self, x: float, y: float, width: float, height: float, **options: Any) -> Axes:
        """Add axes for a chart."""
        box = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(box, **options)

    def image(
        self,
        pixels: np.ndarray,
        x: float,
        y: float,
        width: float,
        height: float,
        aspect: float,
        **options: Any,
    ) -> Axes:
        """Put an image into a box, as large as fits, and return its axes, in image pixels.

        Args:
            pixels: (height, width, 3), 0 to 255.
            x: of the box, as for the next three.
            y: see there.
            width: see there.
            height: see there.
            aspect: a pixel's height by its width.
            options: of matplotlib's ``imshow``.
        """
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, aspect=aspect, **options)
        axes.autoscale(False)
        axes.set_axis_off()
        axes.set_anchor("N")
        return axes

    def text(self, x: float, y: float, text: str, size: float = 13, **options: Any) -> None:
        """Write a line as it is (``$`` and ``_`` are no formulas); y is its middle.

        Args:
            x: where it begins, or ends or has its middle (``ha``).
            y: see above.
            text: the line.
            size: of its letters, in pixels.
            options: of matplotlib's.
        """
        options = {"va": "center", "color": "black"} | options
        self.figure.text(
            x / WIDTH,
            1 - y / self.height,
            text,
            fontsize=size * POINTS,
            parse_math=False,
            **options,
        )

    def png(self) -> bytes:
        """Return the page as a PNG; within `new_page`, whose style it is drawn in."""
        written = io.BytesIO()
        self.figure.savefig(written, dpi=_DPI, format="png")
        return written.getvalue()

    def bar(self, x: float, y: float, width: float, height: float, colour: Any) -> None:
        """Fill a rectangle."""
        corner = (x / WIDTH, 1 - (y + height) / self.height)
        size = (width / WIDTH, height / self.height)
        transform = self.figure.transFigure
        self.figure.add_artist(Rectangle(corner, *size, color=colour, lw=0, transform=transform))


@contextmanager
def new_page(height: int) -> Iterator[Page]:
    """Yield an empty page to draw on.

    It looks the same whatever styles others have set: nnU-Net sets seaborn's for progress.png.

    Args:
        height: in pixels.
    """
    with matplotlib.style.context("default"), warnings.catch_warnings():
        # Letters that matplotlib's font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield Page(height)
