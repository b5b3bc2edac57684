"""Where images and masks lie in a folder: the layouts of the field, and which one this is."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from vit_backbone import UserError, shorten

from .classes import masks_of_classes, pair_classes
from .pairing import Case, Paired, check_names, image_word_of, is_mask, pair, pair_each
from .sources import (
    READABLE,
    Item,
    Listing,
    list_folder,
    names_of,
    series_below,
    series_item,
    with_series,
)

_IMAGE_FOLDERS = {"images", "image", "imgs", "img", "imagestr", "jpegimages", "originals", "scans"}
_MASK_FOLDERS = {
    *("masks", "mask", "labels", "label", "labelstr", "annotations", "annotation", "gt"),
    *("groundtruth", "groundtruths", "segmentation", "segmentations", "segmentationclass", "seg"),
    *("manual", "1stmanual", "targets", "annot"),
}
_TEST_FOLDERS = {"imagests", "test", "testimages", "testing"}
_LAYOUTS = (
    "expected: folders images and masks (labels, annotations, gt, ...), images and masks (x.png, "
    "x_mask.png) beside each other, or a folder for each case; else give --images DIR --masks DIR"
)


@dataclass
class Found:
    """The images and masks of a folder.

    Attributes:
        said: where they lie, for the page.
        paired: what belongs together.
        test: images that have no masks on purpose.
        left_alone: what else lies there.
        classes: names of the labels, where each has a folder of masks, in the masks' order.
    """

    said: str
    paired: Paired
    test: list[Item] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def find_images(
    folder: Path,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    *,
    suffix: str | None = None,
    test: str | Path | None = None,
    missing_is_absent: bool = False,
) -> Found:
    """Find the images and masks of a folder, and what belongs together.

    Args:
        folder: to look in.
        images: the folder of images, in ``folder`` or not; ``None``: it is found by its name.
        masks: the folder of masks; ``None``: it is found by its name.
        suffix: what the names of masks end with, if that is no usual word.
        test: the folder of test images; ``None``: it is found by its name, if there is one.
        missing_is_absent: see `classes.pair_classes`.

    Raises:
        UserError: no such folder, no layout that is known, or several that it may be.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    listing = list_folder(folder)
    image_folder = _given(folder, images) or _one(listing, _IMAGE_FOLDERS, "--images")
    mask_folder = _given(folder, masks) or _one(listing, _MASK_FOLDERS, "--masks")
    test_folder = _given(folder, test) or _one(listing, _TEST_FOLDERS, "--test")
    used = [image_folder, mask_folder, test_folder]
    if test_folder and any(f and f.samefile(test_folder) for f in (image_folder, mask_folder)):
        raise UserError(f"--test {test_folder}: a folder of its own is expected")
    left = [f"{f.name}/" for f in listing.folders if f not in used]
    if image_folder and mask_folder:
        if image_folder == mask_folder:
            found = _beside_each_other(list_folder(image_folder).items, suffix)
        else:
            found = _in_two_folders(image_folder, mask_folder, suffix, missing_is_absent)
        left += [item.path.name for item in listing.items]
    elif there := image_folder or mask_folder:
        missing = "masks" if image_folder else "images"
        raise UserError(
            f"{folder}: there is {there.name}/, but no folder of {missing}: --{missing} DIR says "
            "which it is, the same one too"
        )
    elif listing.items:
        found = _beside_each_other(listing.items, suffix)
    else:
        found = _folder_by_folder([f for f in listing.folders if f != test_folder], folder, suffix)
        left = []
    found.left_alone = [*left, *listing.left_alone, *found.left_alone]
    if test_folder:
        found.test, more = images_of(test_folder)
        found.left_alone += more
    return found


def _given(folder: Path, name: str | Path | None) -> Path | None:
    if name is None:
        return None
    for path in (folder / name, Path(name)):
        if path.is_dir():
            return path
    raise UserError(f"there is no folder {shorten(name, 200)}, in {folder} or here")


def _one(listing: Listing, names: set[str], option: str) -> Path | None:
    """Return the one folder of such a name, if there is one."""
    found = [folder for folder in listing.folders if _is(folder, names)]
    if len(found) > 1:
        there = ", ".join(f.name for f in found)
        raise UserError(f"{found[0].parent}: it may be {there}; say which one: {option} DIR")
    return found[0] if found else None


def _is(folder: Path, names: set[str]) -> bool:
    return re.sub(r"[-_. ]", "", folder.name.lower()) in names


def _in_two_folders(
    images: Path, masks: Path, suffix: str | None, missing_is_absent: bool
) -> Found:
    image_items, left_images = images_of(images)
    mask_items, left_masks = images_of(masks)
    classes, left_classes = ({}, []) if mask_items else masks_of_classes(masks)
    if image_items and classes:
        said = f"images in {images.name}/, a folder for each class in {masks.name}/"
        paired = pair_classes(image_items, classes, suffix, missing_is_absent=missing_is_absent)
        return Found(said, paired, left_alone=left_images + left_classes, classes=(*classes,))
    for folder, items in ((images, image_items), (masks, mask_items)):
        if not items:
            below = ", ".join(f"{path.name}/" for path in list_folder(folder).folders[:3])
            hint = f" (in it: {below}: --images DIR --masks DIR)" if below else ""
            raise UserError(f"{folder}: there is nothing to read{hint}; expected: {READABLE}")
    paired = pair(image_items, mask_items, suffix)
    said = f"images in {images.name}/, masks in {masks.name}/"
    return Found(said, paired, left_alone=left_images + left_masks)


def images_of(folder: Path) -> tuple[list[Item], list[str]]:
    """List a folder's images, and what else lies there; a folder ``images`` in it counts.

    Args:
        folder: it exists.
    """
    listing = list_folder(folder)
    left = []
    if not listing.items and (inner := _one(listing, _IMAGE_FOLDERS, "--test")):
        left = [f"{other.name}/" for other in listing.folders if other != inner]
        listing = list_folder(inner)
    items, others = with_series(listing)
    left += [*listing.left_alone, *(f"{other.name}/" for other in others)]
    return items, [f"{folder.name}/{name}" for name in left]


def _beside_each_other(items: list[Item], suffix: str | None) -> Found:
    if not items:
        raise UserError(f"there is nothing to read; expected: {READABLE}")
    masks = [item for item in items if is_mask(item.name, suffix)]
    images = [item for item in items if item not in masks]
    said = "images and masks beside each other"
    if not masks and suffix is None:
        # x.jpg and x.png: no mask is stored with loss if there is a choice.
        images = [item for item in items if item.format == "JPEG"]
        masks = [item for item in items if item not in images]
        said += ": JPEG the images, the others the masks"
    if not masks or not images:
        above = items[0].path.resolve().parent.parent
        hint = f"import {above}, which holds both? Else " if _holds_both(above) else ""
        raise UserError(
            f"{items[0].path.parent}: no names that tell masks from images ({names_of(items, 3)}); "
            f"{hint}{_LAYOUTS}, or --mask_suffix TEXT"
        )
    return Found(said, pair(images, masks, suffix))


def _folder_by_folder(folders: list[Path], parent: Path, suffix: str | None) -> Found:
    """A folder for each case, or for several."""
    inside = [folder.name for folder in folders if _holds_both(folder)]
    if not folders or inside:
        hint = f"; import one of them: {parent / inside[0]}" if inside else ""
        raise UserError(f"{parent}: no images and masks are found{hint}; {_LAYOUTS}")
    contents = {folder.name: _contents(folder, suffix) for folder in folders}
    left = [name for _, _, others in contents.values() for name in others]
    if any(len(masks) > 1 for _, masks, _ in contents.values()):
        paired = pair_each(((images, masks) for images, masks, _ in contents.values()), suffix)
        return Found("images and masks beside each other, in folders", paired, left_alone=left)
    return Found("a folder for each case", _cases_of(contents), left_alone=left)


def _cases_of(contents: dict[str, tuple[list[Item], list[Item], list[str]]]) -> Paired:
    """Take each folder as a case; its images, if there are several, are channels."""
    cases, without_mask, without_image = [], [], []
    channels: dict[tuple[str, ...], str] = {}
    for case, (images, masks, _) in contents.items():
        if not images or not masks:
            without_mask += images
            without_image += masks
            continue
        by_channel = {_channel_of(item.name, case): item for item in images}
        channels.setdefault(tuple(sorted(by_channel)), case)
        if len(by_channel) < len(images) or len(channels) > 1:
            said = "; ".join(f"{', '.join(c)} in {first}" for c, first in channels.items())
            raise UserError(f"{case}: every case has the same images, but there is {said}")
        cases.append(Case(case, tuple(by_channel[name] for name in sorted(by_channel)), masks[0]))
    check_names([case.name for case in cases])
    names = next(iter(channels), ())
    names = names if len(names) > 1 else ()
    return Paired(cases, names, tuple(without_mask), tuple(without_image))


def _contents(folder: Path, suffix: str | None) -> tuple[list[Item], list[Item], list[str]]:
    """Return a case's images, its masks, and what else lies there."""
    listing = list_folder(folder)
    loose = [item for item in listing.items if item.format == "DICOM"]
    items = listing.items
    if len(loose) > 1:
        others_than_slices = [item for item in items if item not in loose]
        items = [*others_than_slices, series_item(folder.name, folder)]
    others = []
    for below in listing.folders:
        series = series_below(below)
        items = [*items, *(series_item(below.name, path) for path in series)]
        others += [] if series else [f"{below.name}/"]
    masks = [item for item in items if is_mask(item.name, suffix)]
    left = [f"{folder.name}/{name}" for name in [*listing.left_alone, *others]]
    return [item for item in items if item not in masks], masks, left


def _channel_of(name: str, case: str) -> str:
    """Return what tells a case's images apart: their names less the case's name."""
    rest = name.removeprefix(case).strip("-_. ")
    return "image" if not rest or image_word_of(rest) else rest


def _holds_both(folder: Path) -> bool:
    """Whether a folder holds one of images and one of masks."""
    inside = [path for path in folder.iterdir() if path.is_dir()]
    kinds = (_IMAGE_FOLDERS, _MASK_FOLDERS)
    return all(any(_is(path, names) for path in inside) for names in kinds)
