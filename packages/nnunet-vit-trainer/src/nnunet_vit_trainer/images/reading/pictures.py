"""PNG, JPEG, TIFF and their like, without losing a bit: what PIL would change is refused."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from vit_backbone import UserError

from .pixels import Pixels, without_alpha
from .tiffs import TURNED, count_pages, is_tiff, read_stack, read_tiff
from .volumes import read_volume

Exif = Literal["apply", "ignore"]

_COLOUR = {"LA": ("grey", "alpha"), "RGB": ("R", "G", "B"), "RGBA": ("R", "G", "B", "alpha")}
_GREY = ("L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# Tags of TIFF; of extra channels, 0 says nothing of what they are.
_BITS_OF_TIFF, _SHOWN_OF_TIFF, _EXTRA_OF_TIFF, _FORMAT_OF_TIFF = 258, 262, 338, 339
_WHITE_IS_0, _UNNAMED, _UNSIGNED = 0, 0, 1
_PNG_DEPTH_AT = 24
_PNM_HEAD = 4096


def read_picture(
    file: Path,
    *,
    mask: bool = False,
    exif: Exif | None = None,
    page: int | None = None,
    spacing: tuple[float, ...] | None = None,
) -> Pixels:
    """Read a picture.

    Args:
        file: of an ending in `sources.PICTURES`.
        mask: leave the values of a palette as they are, and name their colours.
        exif: turn a picture that says that it is to be turned, or leave it as it is stored.
        page: see `tiffs.read_stack`, like the next; a TIFF of several pages is a volume.
        spacing: of that.

    Raises:
        UserError: an animation, a turned picture without ``exif``, alpha, a mask of one bit in
            which 0 is white, or no picture of grey, colours or a palette.
        Exception: what PIL or tifffile says of a file that it cannot read.
    """
    if is_tiff(file):
        if count_pages(file) > 1:
            return read_stack(file, page, spacing)
        if _is_deep_tiff(file):
            return read_tiff(file)
    with Image.open(file) as image:
        # Of phones (MPO): the picture, and smaller ones of it.
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and image.format != "MPO":
            raise UserError(f"is an animation of {pages} pictures; save each as a file")
        if image.format == "PPM":
            _check_pnm(file, image)
        if mask and image.mode == "1":
            _refuse_inverted(image)
        turned = _turned(image, exif)
        if image.format == "PNG" and image.mode not in _GREY and _depth_of_png(file) > 8:
            return _read_deep(file, turned)
        image.load()
        return _pixels_of(ImageOps.exif_transpose(image) if turned else image, mask=mask)


def _is_deep_tiff(file: Path) -> bool:
    """Whether PIL cannot read this TIFF, or would keep less than its values and channels."""
    try:
        with Image.open(file) as image:
            if not isinstance(image, TiffImagePlugin.TiffImageFile):
                return False
            bits = image.tag_v2.get(_BITS_OF_TIFF, (1,))
            unnamed = _UNNAMED in image.tag_v2.get(_EXTRA_OF_TIFF, ())
            others = {*image.tag_v2.get(_FORMAT_OF_TIFF, (_UNSIGNED,))} != {_UNSIGNED}
            return max(bits) > 8 or len(bits) > len(image.getbands()) or unnamed or others
    except UnidentifiedImageError:
        return True


def _turned(image: Image.Image, exif: Exif | None) -> bool:
    """Whether the picture is to be turned before it is used."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in (0, 1):
        return False
    if image.format == "TIFF":  # PIL turns it as it loads it, or not, as its version is
        raise UserError(TURNED.format(orientation))
    if exif is None:
        raise UserError(
            f"says that it is to be turned (EXIF orientation {orientation}), and masks are drawn "
            "on the turned picture or on the stored one: look, then give --exif apply or --exif "
            "ignore"
        )
    return exif == "apply"


def _refuse_inverted(image: Image.Image) -> None:
    """Refuse a TIFF of one bit in which 0 is white: who wrote it may have meant it or not."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if tags.get(_SHOWN_OF_TIFF) == _WHITE_IS_0:
        raise UserError(
            "is a TIFF of one bit in which 0 is white: tifffile and scikit-image save True and "
            "False so, and viewers show the objects black; save it as PNG, or as uint8"
        )


def _check_pnm(file: Path, image: Image.Image) -> None:
    """Refuse what PIL would stretch to 0 to 255 (a mask of 0 to 3), or cut to 8 bits (colours)."""
    with file.open("rb") as stream:
        head = re.sub(rb"#[^\n]*", b"", stream.read(_PNM_HEAD)).split(maxsplit=4)
    largest = int(head[3]) if image.mode != "1" else 255
    if largest != 255 and (largest != 65535 or image.mode == "RGB"):
        raise UserError(
            f"has {largest} as its largest value; 255 is expected, or 65535 of grey: save it as PNG"
        )


def _depth_of_png(file: Path) -> int:
    with file.open("rb") as stream:
        return stream.read(_PNG_DEPTH_AT + 1)[_PNG_DEPTH_AT]


def _read_deep(file: Path, turned: bool) -> Pixels:
    """Read a PNG of 16 bits per colour, of which PIL would keep 8 without a word."""
    if turned:
        raise UserError("is to be turned, and has 16 bits per colour; store it upright")
    values = read_volume(file).values
    names = {2: _COLOUR["LA"], 3: _COLOUR["RGB"], 4: _COLOUR["RGBA"]}[len(values)]
    pixels = Pixels(values, names)
    return without_alpha(pixels) if "alpha" in names else pixels


def _pixels_of(image: Image.Image, *, mask: bool) -> Pixels:
    if image.mode == "1":
        image = image.convert("L")  # white is 255, as in pictures of 8 bits
    if image.mode in ("P", "PA"):
        if mask and image.mode == "P":
            return Pixels(np.asarray(image)[None], ("grey",), palette=_palette(image))
        image = _without_palette(image)
    if image.mode in _GREY:
        values = np.asarray(image)
        # Of PIL before 11, and of PGM.
        if image.format in ("PNG", "PPM") and values.dtype == np.int32:
            values = values.astype(np.uint16)
        return Pixels(values.astype(values.dtype.newbyteorder("="))[None], ("grey",))
    if image.mode not in _COLOUR:
        raise UserError(f"is neither grey nor RGB, but {image.mode}; save it as RGB")
    pixels = Pixels(np.moveaxis(np.asarray(image), -1, 0), _COLOUR[image.mode])
    return without_alpha(pixels) if "alpha" in pixels.channels else pixels


def _palette(image: Image.Image) -> dict[int, int]:
    packed = np.asarray(image.getpalette("RGB")).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
    return {index: int(colour) for index, colour in enumerate(packed)}


def _without_palette(image: Image.Image) -> Image.Image:
    """Return the colours that a palette means; grey where all of it is."""
    if image.mode == "PA" or "transparency" in image.info:
        return image.convert("RGBA")
    greys = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
    used = np.unique(np.asarray(image))
    return image.convert("L" if (np.ptp(greys[used], axis=1) == 0).all() else "RGB")
