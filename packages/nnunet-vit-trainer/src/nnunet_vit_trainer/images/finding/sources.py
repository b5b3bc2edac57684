"""What a folder holds that can be read: pictures, volumes, folders of one DICOM series."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vit_backbone import shorten

PICTURES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
    ".ppm": "PPM",
    ".pgm": "PGM",
}
VOLUMES = {
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".dcm": "DICOM",
}
READABLE = "PNG, JPEG, TIFF, BMP, GIF, WebP, PPM, NIfTI, NRRD, MetaImage or DICOM"

_CLUTTER = {"thumbs.db", "desktop.ini", "dicomdir", "__macosx"}
_DICOM_MARK, _MARK_AT = b"DICM", 128


@dataclass(frozen=True)
class Item:
    """An image or a mask.

    Attributes:
        name: of the file without its ending, or of the folder.
        path: a file, or a folder that holds the files of one DICOM series.
        format: such as ``PNG``.
        kind: how it is read.
        page: of a file of several, from 0; ``None``: all of the file.
        parts: of a mask that is a file for each class: labels' numbers and files, the first of
            which this item names.
    """

    name: str
    path: Path
    format: str
    kind: Literal["picture", "volume", "series"]
    page: int | None = None
    parts: tuple[tuple[int, "Item"], ...] = ()

    def __str__(self) -> str:
        name = shorten(f"{self.path.parent.name}/{self.path.name}", 80)
        return name if self.page is None else f"{name} (page {self.page + 1})"


@dataclass(frozen=True)
class Listing:
    """What lies in a folder, in the order of names.

    Attributes:
        items: what can be read.
        folders: the folders in it.
        left_alone: names of other files, hidden and system's ones among them.
    """

    items: list[Item]
    folders: list[Path]
    left_alone: list[str]


def list_folder(folder: Path) -> Listing:
    """List what lies in a folder, not below it.

    Args:
        folder: it exists.
    """
    listing = Listing([], [], [])
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _CLUTTER:
            listing.left_alone.append(path.name)
        elif path.is_dir():
            listing.folders.append(path)
        elif item := _item_of(path):
            listing.items.append(item)
        else:
            listing.left_alone.append(path.name)
    return listing


def series_below(folder: Path) -> list[Path]:
    """List the folders, this one or below it, that hold DICOM files."""
    listing = list_folder(folder)
    here = [folder] if any(item.format == "DICOM" for item in listing.items) else []
    return [*here, *(found for below in listing.folders for found in series_below(below))]


def with_series(listing: Listing) -> tuple[list[Item], list[Path]]:
    """Take a folder's folders of DICOM files as images too.

    Args:
        listing: of a folder of images or of masks.

    Returns:
        The items, and the folders that hold no DICOM files.
    """
    items, others = list(listing.items), []
    for folder in listing.folders:
        series = series_below(folder)
        items += [series_item(folder.name, path) for path in series]
        if not series:
            others.append(folder)
    return items, others


def series_item(name: str, folder: Path) -> Item:
    """Return the item of a folder of DICOM files, under any name."""
    return Item(_composed(name), folder, "DICOM", "series")


def names_of(items: Iterable[object], most: int = 5) -> str:
    """Name some things and say how many more there are.

    Args:
        items: their texts are their names.
        most: so many are named.
    """
    names = [str(item) for item in items]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _item_of(path: Path) -> Item | None:
    lower = path.name.lower()
    for endings, kind in ((PICTURES, "picture"), (VOLUMES, "volume")):
        for ending, name in endings.items():
            if lower.endswith(ending):
                return Item(_composed(path.name[: -len(ending)]), path, name, kind)
    if not path.is_file():
        return None  # nor opened: it may be a pipe
    # Files of DICOM often have a number for a name, and no ending.
    with path.open("rb") as file:
        head = file.read(_MARK_AT + len(_DICOM_MARK))
    if head[_MARK_AT:] == _DICOM_MARK:
        return Item(_composed(path.name), path, "DICOM", "volume")
    return None


def _composed(name: str) -> str:
    """Return a name as one sequence of characters: macOS writes an accent apart from its letter."""
    return unicodedata.normalize("NFC", name)
