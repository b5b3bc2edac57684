"""Folders of images and masks, as people have them, for the tests of the import."""

import locale

import numpy as np
import SimpleITK
from PIL import Image

from nnunet_vit_trainer.images.importing import import_images
from nnunet_vit_trainer.images.request import Request

NAME = "Dataset042_Mine"
SHAPE = (10, 12)
DEEP = np.random.default_rng(0).integers(0, 65535, SHAPE).astype(np.uint16)
TURN = 274  # the tag of EXIF and of TIFF


def picture(file, values=None, *, mode=None, **options):
    """Save a picture; of grey noise, where no values are given. Folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(noise() if values is None else values))
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def noise(*shape, seed=0):
    """Grey values, uint8."""
    return np.random.default_rng(seed).integers(0, 255, shape or SHAPE).astype(np.uint8)


def mask(value=255, *, shape=SHAPE):
    """A mask of 0 with a corner of another value, uint8."""
    values = np.zeros(shape, np.uint8)
    values[:4, :5] = value
    return values


def coloured(*colours):
    """An RGB mask: black, with a row of each colour."""
    values = np.zeros((*SHAPE, 3), np.uint8)
    for row, colour in enumerate(colours):
        values[row] = colour
    return values


def volume(file, values, spacing=(0.5, 0.5, 2.0), origin=(1.0, 2.0, 3.0), direction=None):
    """Save a volume (z, y, x), or a slice (y, x), through SimpleITK."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(values, isVector=False)
    dimensions = image.GetDimension()
    image.SetSpacing((*spacing, 1.0)[:dimensions])
    image.SetOrigin((*origin, 0.0)[:dimensions])
    if direction:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(file))
    return file


def series(folder, values, *, uid="1.2.3", modality="CT", at=None, along=(0, 0, 1), **tags):
    """Save a DICOM series of the slices of ``values`` (z, y, x) int16, ``at`` these heights.

    The trap: ITK's writing leaves the process in the locale C, and then no later test of the same
    process can read what a command prints beyond ASCII.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(values):
        height = 2.0 * number if at is None else at[number]
        image = SimpleITK.GetImageFromArray(plane[None])
        image.SetSpacing((0.5, 0.5, 2.0))
        place = "\\".join(str(height * part) for part in along)
        said = {
            "0008|0060": modality,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{number + 1}",
            "0020|0032": place,
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(number),
            **tags,
        }
        for key, value in said.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}_{number}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)
    return folder


def xray(folder, *, inverted):
    """Save a DICOM series of one slice of CR, in which black is high, or low."""
    series(folder, np.zeros((1, *SHAPE), np.int16), modality="CR")
    for file in folder.iterdir() if inverted else []:
        file.write_bytes(file.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))


def two_photos(folder):
    """Save two photos with masks of 0 and 255, and return the folder."""
    for number, name in enumerate(("a", "b (1)")):
        picture(folder / "images" / f"{name}.png", noise(*SHAPE, 3, seed=number))
        picture(folder / "masks" / f"{name}_mask.png", mask(255))
    return folder


def imported(folder, *, check=False, **request):
    """Import a folder as data set 42, into ``raw`` beside it."""
    raw = folder.parent / "raw"
    return import_images(Request(folder, 42, "Mine", **request), raw, check=check)


def written(folder):
    """List what lies in that ``raw``."""
    root = folder.parent / "raw"
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


def read(file):
    """Return a picture's values as PIL reads them."""
    return np.asarray(Image.open(file))
