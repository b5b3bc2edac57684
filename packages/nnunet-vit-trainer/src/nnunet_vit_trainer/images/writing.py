"""Cases in nnU-Net's raw format: pictures as PNG or, of other values, TIFF; volumes as NIfTI."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from .reading.pixels import Geometry, Pixels

_IN_PNG = ("uint8", "uint16")
_AS_IT_IS = ("int32", "float32")


@dataclass(frozen=True)
class Form:
    """How nnU-Net finds and reads the files of a data set.

    Attributes:
        ending: of all its files.
        reader: nnU-Net's class.
    """

    ending: str
    reader: str


def form_of(*, pictures: bool, dtypes: Sequence[str]) -> Form:
    """Choose the form that loses nothing.

    Args:
        pictures: no volumes.
        dtypes: of the images' values.
    """
    if not pictures:
        return Form(".nii.gz", "SimpleITKIO")
    whole = all(dtype in _IN_PNG for dtype in dtypes)
    return Form(".png" if whole else ".tif", "NaturalImage2DIO")


def stored_as(dtype: str) -> str:
    """Return the type in which a picture's values are written.

    Args:
        dtype: in which they were read.
    """
    return dtype if dtype in (*_IN_PNG, *_AS_IT_IS) else "float32"  # as which nnU-Net reads it


def write_images(
    images: Sequence[Pixels], folder: Path, name: str, form: Form, *, flat: bool
) -> None:
    """Write a case's images, ``<name>_0000`` and so on: a file for RGB of 8 bits, or each channel.

    nnU-Net wants as many channels in each file of a case, so RGB beside grey is taken apart.

    Args:
        images: see `examine.read_case`.
        folder: it exists.
        name: of the case.
        form: see `form_of`.
        flat: volumes of one slice are 2D images.
    """
    together = form.ending == ".png" and all(map(_is_rgb, images))
    planes = [plane for image in images for plane in _planes(image, together=together)]
    geometry = images[0].geometry
    for number, plane in enumerate(planes):
        _write(plane, geometry, folder / f"{name}_{number:04d}{form.ending}", flat=flat)


def write_mask(
    labels: np.ndarray,
    geometry: Geometry | None,
    folder: Path,
    name: str,
    form: Form,
    *,
    flat: bool,
) -> None:
    """Write a case's labels.

    Args:
        labels: uint8, (y, x) or (z, y, x).
        geometry: the images'.
        folder: it exists.
        name: of the case.
        form: see `form_of`.
        flat: see `write_images`.
    """
    _write(labels, geometry, folder / f"{name}{form.ending}", flat=flat)


def _is_rgb(image: Pixels) -> bool:
    return len(image.values) == 3 and image.values.dtype == np.uint8


def _planes(image: Pixels, *, together: bool) -> list[np.ndarray]:
    return [np.moveaxis(image.values, 0, -1)] if together else list(image.values)


def _write(values: np.ndarray, geometry: Geometry | None, file: Path, *, flat: bool) -> None:
    if geometry is None:
        values = values.astype(stored_as(str(values.dtype)), copy=False)
        Image.fromarray(np.ascontiguousarray(values)).save(file)
        return
    if flat:
        image = SimpleITK.GetImageFromArray(values[0])
        image.SetSpacing(geometry.spacing[:2])  # a slice's place in the patient has no 2D form
    else:
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing(geometry.spacing)
        image.SetOrigin(geometry.origin)
        image.SetDirection(geometry.direction)
    SimpleITK.WriteImage(image, str(file), True)
