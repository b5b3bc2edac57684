"""TIFF of more than 8 bits, or of more channels than colours: PIL and ITK would keep 8, or four."""

from pathlib import Path

import numpy as np
import tifffile

from vit_backbone import UserError

from .pixels import Pixels, without_alpha

PAGES = (
    "has {} pages: a volume or a film? Save it as NIfTI, with its spacing, or each page as a file"
)
TURNED = "is stored turned (orientation {}); store it upright"
_READ: dict[int, tuple[str, ...]] = {
    tifffile.PHOTOMETRIC.MINISBLACK: ("grey",),
    tifffile.PHOTOMETRIC.RGB: ("R", "G", "B"),
}
_ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}


def read_tiff(file: Path) -> Pixels:
    """Read a picture of any depth, and any number of channels.

    Args:
        file: a TIFF of one page.

    Raises:
        UserError: several pages, stored turned or inverted, or alpha.
        Exception: what tifffile says of a file that it cannot read.
    """
    with tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) > 1:
            raise UserError(PAGES.format(len(tiff.pages)))
        page = tiff.pages.first
        orientation = int(page.tags.valueof("Orientation", default=1))
        if orientation != 1:
            raise UserError(TURNED.format(orientation))
        if page.photometric not in _READ:
            name = getattr(page.photometric, "name", page.photometric)
            raise UserError(f"is neither grey with black as 0 nor RGB, but {name}; save it so")
        axes, alpha = page.axes, {*page.extrasamples} & _ALPHA
        values = page.asarray()
    if axes not in ("YX", "YXS", "SYX"):
        raise UserError(f"has the axes {axes}; a picture has height, width and channels")
    values = values[None] if axes == "YX" else np.moveaxis(values, axes.index("S"), 0)
    names = _READ[page.photometric]
    extra = len(values) - len(names)
    if extra == 1 and alpha:
        return without_alpha(Pixels(values, (*names, "alpha")))
    if extra:
        names = tuple(f"channel_{number}" for number in range(len(values)))
    return Pixels(values, names)
