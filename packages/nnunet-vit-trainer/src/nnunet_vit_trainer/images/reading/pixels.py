"""The pixels of an image or a mask as they were read, and where they lie in the patient."""

from dataclasses import dataclass

import numpy as np

from vit_backbone import UserError


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies, as SimpleITK says it: x first.

    Attributes:
        spacing: between pixels, in mm.
        origin: of the first pixel, in mm.
        direction: the axes' cosines, row by row.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class Pixels:
    """What was read from one file, or from one series.

    Attributes:
        values: (channels, y, x) or (channels, z, y, x).
        channels: their names: ``R``, ``G``, ``B``; ``grey``; ``CT`` and the like, of DICOM.
        geometry: ``None`` of pictures.
        palette: colours 0xRRGGBB of a mask's values, where it has a palette.
        remarks: what was left out, or done, that the user ought to know.
    """

    values: np.ndarray
    channels: tuple[str, ...]
    geometry: Geometry | None = None
    palette: dict[int, int] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x)."""
        return self.values.shape[1:]


def shown(pixels: Pixels) -> np.ndarray:
    """Return a mask's values as they are seen: (3, y, x) uint8 where it has a palette.

    Args:
        pixels: of a mask.
    """
    if not pixels.palette:
        return pixels.values
    colours = np.array([pixels.palette.get(index, 0) for index in range(256)], np.int64)
    seen = colours[pixels.values[0]]
    return np.stack([seen >> 16 & 255, seen >> 8 & 255, seen & 255]).astype(np.uint8)


def without_alpha(pixels: Pixels) -> Pixels:
    """Drop a constant alpha channel, and say so.

    Args:
        pixels: of two or four channels, of which the last is alpha.

    Raises:
        UserError: alpha is not constant, so it is part of the picture.
    """
    alpha = pixels.values[-1]
    if alpha.min() != alpha.max():
        raise UserError(
            "is transparent in parts (alpha is not constant); flatten it onto the background that "
            "you mean, and save it without alpha"
        )
    remark = "alpha, the same everywhere, is left out"
    return Pixels(pixels.values[:-1], pixels.channels[:-1], pixels.geometry, None, (remark,))


def say_size(size: tuple[int, ...]) -> str:
    """Say a size as people do, x first.

    Args:
        size: (y, x) or (z, y, x).
    """
    return "x".join(map(str, size[::-1]))
