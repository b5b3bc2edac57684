"""What somebody wants imported, and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .examine import Look
from .finding.layouts import Found
from .masks.labels import Labelling
from .reading.pages import Pages
from .reading.pictures import Exif
from .writing import Form


@dataclass(frozen=True)
class Request:
    """What is imported, and how doubtful things are meant.

    Attributes:
        folder: of images and masks.
        number: the data set's ID, 1 to 999.
        name: the data set's name, without ``Dataset042_``.
        images: the folder of images, where its name does not say so.
        masks: the folder of masks, where its name does not say so.
        test: the folder of test images, where its name does not say so.
        mask_suffix: what the names of masks end with, where that is no usual word.
        labels: see `labels.parse_labels`; ``None``: they are plain to see.
        threshold: masks are grey, and what is as bright as this is foreground.
        channels: names of the channels, which tell nnU-Net how to normalise them.
        exif: what to do with pictures that say that they are to be turned.
        skip_unpaired: go on without images that have no mask, and masks that have no image.
        missing_is_absent: see `finding.classes.pair_classes`.
        pages: what a TIFF of several pages is: a ``volume``, or each page one of the ``cases``.
        spacing: of such volumes, x first, in mm.
    """

    folder: Path
    number: int
    name: str
    images: str | None = None
    masks: str | None = None
    test: str | None = None
    mask_suffix: str | None = None
    labels: Sequence[str] | None = None
    threshold: int | None = None
    channels: Sequence[str] | None = None
    exif: Exif | None = None
    skip_unpaired: bool = False
    missing_is_absent: bool = False
    pages: Pages = "volume"
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """What was found, and became of it.

    Attributes:
        target: the data set's folder.
        found: the images and masks.
        looks: at the cases, by their names.
        test: at the test images.
        labelling: from the masks' values to labels.
        channels: their names in dataset.json.
        form: of the files.
        flat: volumes of one slice became 2D images.
    """

    target: Path
    found: Found
    looks: dict[str, Look]
    test: dict[str, Look]
    labelling: Labelling
    channels: tuple[str, ...]
    form: Form
    flat: bool
