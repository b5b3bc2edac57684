"""A case's images and mask: read, and fitted to each other."""

from dataclasses import dataclass, replace

import numpy as np

from nnunet_vit_trainer.images.finding.pairing import Case
from nnunet_vit_trainer.images.finding.sources import Item
from vit_backbone import UserError, reason_of

from .classes import composed
from .pictures import Exif, read_picture
from .pixels import Geometry, Pixels, say_size
from .volumes import read_series, read_volume

_SAME_PLACE = 1e-3
"""Of a pixel's size: spacings nearer than this are one, and origins ten times as far apart."""

_ROWS_AS_SHOWN = ("DICOM", "TIFF")


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        exif: see `pictures.read_picture`.
        threshold: see `values.values_of`.
        spacing: see `tiffs.read_stack`.
    """

    exif: Exif | None = None
    threshold: int | None = None
    spacing: tuple[float, ...] | None = None


def read_case(case: Case, reading: Reading) -> tuple[list[Pixels], Pixels | None]:
    """Read a case's images, and its mask in the geometry of the images.

    Args:
        case: see `pairing.pair`.
        reading: how.

    Raises:
        UserError: naming a file that cannot be read, or two that do not fit each other.
    """
    images = [_read(item, reading) for item in case.images]
    for item, image in zip(case.images, images, strict=True):
        if image.values.dtype.kind == "f" and not np.isfinite(image.values).all():
            raise UserError(f"{item} has NaN or infinite pixels")
        if (image.geometry is None) != (images[0].geometry is None):
            raise UserError(f"{item} and {case.images[0]} are a picture and a volume of one case")
        _check_fit(case.images[0], images[0], item, image)
    if case.mask is None:
        return images, None
    mask = _read_mask(case.mask, reading)
    return images, _fitted(case.mask, mask, case.images[0], images[0])


def _read_mask(item: Item, reading: Reading) -> Pixels:
    if not item.parts:
        return _read(item, reading, mask=True)
    parts = [(number, part, _read(part, reading, mask=True)) for number, part in item.parts]
    for _, part, mask in parts[1:]:
        _check_fit(parts[0][1], parts[0][2], part, mask)
    return composed(parts, reading.threshold)


def _read(item: Item, reading: Reading, *, mask: bool = False) -> Pixels:
    try:
        if item.kind == "picture":
            pixels = read_picture(
                item.path, mask=mask, exif=reading.exif, page=item.page, spacing=reading.spacing
            )
        else:
            pixels = (read_series if item.kind == "series" else read_volume)(item.path)
    except UserError as error:
        raise UserError(f"{item} {error}") from error
    except Exception as error:  # PIL's plugins raise whatever broken bytes make them raise
        raise UserError(f"{item} cannot be read ({reason_of(error, 80)})") from error
    if not pixels.values.size:
        raise UserError(f"{item} has no pixels")
    return pixels


def _fitted(mask_item: Item, mask: Pixels, image_item: Item, image: Pixels) -> Pixels:
    """Return the mask in the image's geometry, which it has but for rounding."""
    # Of DICOM and TIFF, programs show the rows as they are stored; of NIfTI and its like, not all.
    if (mask.geometry is None) != (image.geometry is None) and (
        image.geometry is None or image_item.format not in _ROWS_AS_SHOWN
    ):
        raise UserError(
            f"{mask_item} is {mask_item.format}, and {image_item} is {image_item.format}: their "
            f"rows need not run the same way; save the mask as "
            f"{image_item.format if image.geometry else 'PNG'}"
        )
    flat = image.geometry is not None and image.values.ndim == 4 and image.size[0] == 1
    if mask.geometry is None and flat:  # a picture that was drawn on a slice
        mask = replace(mask, values=mask.values[:, None])
    _check_fit(image_item, image, mask_item, mask)
    return replace(mask, geometry=image.geometry)


def _check_fit(item: Item, pixels: Pixels, other_item: Item, other: Pixels) -> None:
    if pixels.size != other.size:
        sizes = f"{other_item} is {say_size(other.size)}, {item} is {say_size(pixels.size)}"
        turned = pixels.size[::-1] == other.size
        raise UserError(sizes + (": one of them is turned" if turned else ""))
    here, there = pixels.geometry, other.geometry
    if here is None or there is None:
        return
    what = _difference(here, there)
    if what:
        one, two = (_say_numbers(getattr(g, what)) for g in (there, here))
        raise UserError(
            f"{other_item} has another {what} ({one}) than {item} ({two}); give both one "
            "geometry, by one converter or by resampling"
        )


def _difference(one: Geometry, other: Geometry) -> str:
    """Name what differs between two geometries by more than rounding, or nothing."""
    near = _SAME_PLACE * min(one.spacing)
    for what, tolerance in (("spacing", near), ("direction", _SAME_PLACE), ("origin", 10 * near)):
        here, there = np.array(getattr(one, what)), np.array(getattr(other, what))
        if here.shape != there.shape or np.abs(here - there).max() > tolerance:
            return what
    return ""


def _say_numbers(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers[:9])
