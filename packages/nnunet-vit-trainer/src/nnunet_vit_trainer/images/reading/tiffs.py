"""TIFF of several pages, of more than 8 bits, or of more channels than colours.

PIL and ITK would keep the first page, 8 bits, or four channels.
"""

from pathlib import Path

import numpy as np
import tifffile

from vit_backbone import UserError

from .pixels import Geometry, Pixels, without_alpha

TURNED = "is stored turned (orientation {}); store it upright"
_READ: dict[int, tuple[str, ...]] = {
    tifffile.PHOTOMETRIC.MINISBLACK: ("grey",),
    tifffile.PHOTOMETRIC.RGB: ("R", "G", "B"),
}
_ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
_UNKNOWN = (1.0, 1.0, 1.0)
_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def is_tiff(file: Path) -> bool:
    """Say whether a file is a TIFF, whatever its name says."""
    with file.open("rb") as stream:
        return stream.read(2) in (b"II", b"MM")


def count_pages(file: Path) -> int:
    """Count the pages of a TIFF; ImageJ writes some without saying so in the file's own way.

    Args:
        file: a TIFF.

    Raises:
        UserError: pages that are no slices: of other sizes, channels, or both time and depth.
        Exception: what tifffile says of a file that it cannot read.
    """
    with tifffile.TiffFile(file) as tiff:
        if len(tiff.series) != 1:
            raise UserError(
                f"has pages of {len(tiff.series)} sizes (a thumbnail, a pyramid?); save the one "
                "that counts alone"
            )
        axes, shape = tiff.series[0].axes, tiff.series[0].shape
    counts = {a: n for a, n in zip(axes, shape, strict=True) if a not in "YXS" and n > 1}
    if len(counts) > 1 or "C" in counts:
        raise UserError(
            f"has pages of several meanings, or channels (axes {axes}); save each channel as a "
            "file, NAME_0000.tif, NAME_0001.tif, ..., of slices alone"
        )
    return next(iter(counts.values()), 1)


def read_stack(file: Path, page: int | None, spacing: tuple[float, ...] | None) -> Pixels:
    """Read all pages as the slices of a volume, or one of them as a picture.

    Args:
        file: a TIFF of several pages.
        page: from 0; ``None`` for all.
        spacing: of the volume, x first, in mm; ``None``: nobody knows, and it is taken as 1.

    Raises:
        UserError: see `count_pages` and `read_tiff`; or a film instead of slices.
        Exception: what tifffile says of a file that it cannot read.
    """
    with tifffile.TiffFile(file) as tiff:
        for other in tiff.pages:
            assert isinstance(other, tifffile.TiffPage)  # frames are had on request only
            _check(other)
        (series,), first = tiff.series, tiff.pages.first
        if page is None and "T" in series.axes:
            raise UserError("is a film (its pages are times); --pages cases takes each as a case")
        if page is not None and len(tiff.pages) == series.shape[0]:
            values, axes = tiff.asarray(key=page)[None], series.axes
        else:
            values, axes = series.asarray(), series.axes
            values = values if page is None else values[page : page + 1]
        values, axes = _without_ones(values, axes)
        values = np.moveaxis(values, axes.index("S"), 0) if "S" in axes else values[None]
        pixels = _named(values, first)
    if page is not None:
        return Pixels(pixels.values[:, 0], pixels.channels, remarks=pixels.remarks)
    remark = "their pages are slices, 1 mm apart for want of a spacing: --spacing X Y Z says it"
    remarks = pixels.remarks if spacing else (*pixels.remarks, remark)
    geometry = Geometry(spacing or _UNKNOWN, (0.0, 0.0, 0.0), _UPRIGHT)
    return Pixels(pixels.values, pixels.channels, geometry, remarks=remarks)


def read_tiff(file: Path) -> Pixels:
    """Read a picture of any depth, and any number of channels.

    Args:
        file: a TIFF of one page.

    Raises:
        UserError: stored turned or inverted, or alpha.
        Exception: what tifffile says of a file that it cannot read.
    """
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        _check(page)
        axes, values = page.axes, page.asarray()
        if axes not in ("YX", "YXS", "SYX"):
            raise UserError(f"has the axes {axes}; a picture has height, width and channels")
        values = values[None] if axes == "YX" else np.moveaxis(values, axes.index("S"), 0)
        return _named(values, page)


def _check(page: tifffile.TiffPage) -> None:
    orientation = int(page.tags.valueof("Orientation", default=1))
    if orientation != 1:
        raise UserError(TURNED.format(orientation))
    if page.photometric not in _READ:
        name = getattr(page.photometric, "name", page.photometric)
        raise UserError(f"is neither grey with black as 0 nor RGB, but {name}; save it so")


def _without_ones(values: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Drop axes of length 1 behind the pages', as ImageJ has them."""
    idle = [i for i, a in enumerate(axes) if i > 0 and values.shape[i] == 1 and a not in "YXS"]
    kept = "".join(axis for i, axis in enumerate(axes) if i not in idle)
    return values.squeeze(tuple(idle)), kept


def _named(values: np.ndarray, page: tifffile.TiffPage) -> Pixels:
    """Name the channels, the first axis."""
    if values.dtype == bool:
        values = values * np.uint8(255)  # as pictures of one bit are read elsewhere
    names = _READ[page.photometric]
    extra = len(values) - len(names)
    if extra == 1 and {*page.extrasamples} & _ALPHA:
        return without_alpha(Pixels(values, (*names, "alpha")))
    if extra:
        names = tuple(f"channel_{number}" for number in range(len(values)))
    return Pixels(values, names)
