"""Masks in a folder for each class: ``masks/cup/a.png``, ``masks/disc/a.png``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vit_backbone import UserError, shorten

from .pairing import Case, Paired, pair
from .sources import Item, list_folder, names_of

BACKGROUND, IGNORE = "background", "ignore"


def label_of(name: str) -> str:
    """Return nnU-Net's spelling of its own two labels, and any other name as it is.

    Args:
        name: that somebody gave a label; nnU-Net would train ``Ignore`` as a class.
    """
    return name.lower() if name.lower() in (BACKGROUND, IGNORE) else name


def numbers_of_folders(classes: Sequence[str]) -> dict[str, int]:
    """Return the label's number of each class that has a folder of masks.

    Args:
        classes: in the order of their numbers; ``background``, which is 0, is first or not there.
    """
    return {name: i for i, name in enumerate(dict.fromkeys((BACKGROUND, *classes)))}


def masks_of_classes(folder: Path) -> tuple[dict[str, list[Item]], list[str]]:
    """List the masks of each class, by the folders' names, and what else lies there.

    Args:
        folder: of masks; where files lie in it, there are no folders of classes.

    Returns:
        ``background`` first, if there is one, and ``ignore`` last, as `label_of` has them; none at
        all where no folder holds a mask.

    Raises:
        UserError: ``background`` or ``ignore`` in two spellings.
    """
    here = list_folder(folder)
    listings = {below.name: list_folder(below) for below in here.folders}
    names = sorted(listings, key=lambda n: (label_of(n) == IGNORE, label_of(n) != BACKGROUND, n))
    left = [f"{folder.name}/{name}" for name in here.left_alone]
    left += [
        f"{folder.name}/{name}/{other}"
        for name in names
        for other in (*listings[name].left_alone, *(f"{f.name}/" for f in listings[name].folders))
    ]
    left += [f"{folder.name}/{name}/" for name in names if not listings[name].items]
    masks: dict[str, list[Item]] = {}
    for name in (name for name in names if listings[name].items):
        if label_of(name) in masks:
            raise UserError(f"{folder} has {label_of(name)} in two spellings; leave one")
        masks[label_of(name)] = listings[name].items
    return masks, left


def pair_classes(
    images: Sequence[Item],
    classes: Mapping[str, Sequence[Item]],
    suffix: str | None,
    *,
    missing_is_absent: bool,
) -> Paired:
    """Pair images with a mask of each class.

    Args:
        images: all of them.
        classes: see `masks_of_classes`.
        suffix: see `pairing.is_mask`.
        missing_is_absent: an image that has no file for a class has nothing of it; one that has
            none at all has no mask.

    Raises:
        UserError: see `pairing.pair`; or a file of a class is missing.
    """
    paired = {name: pair(images, masks, suffix) for name, masks in classes.items()}
    cases = {case.images: case for its in paired.values() for case in its.cases}
    parts: dict[tuple[Item, ...], list[tuple[int, Item]]] = {files: [] for files in cases}
    numbers = numbers_of_folders([*classes])
    missing = []
    for name, its in paired.items():
        found = {case.images: case.mask for case in its.cases}
        for files in cases:
            if mask := found.get(files):
                parts[files].append((numbers[name], mask))
            else:
                missing.append(f"{files[0]} in {shorten(name, 40)}/")
    if missing and not missing_is_absent:
        raise UserError(
            f"images without a mask of a class: {names_of(missing)}; --missing_is_absent takes a "
            "class whose file is missing as not there"
        )
    used = {file for files in cases for file in files}
    return Paired(
        cases=sorted((_case(cases[f], parts[f]) for f in cases), key=lambda case: case.name),
        channels=next((its.channels for its in paired.values() if its.cases), ()),
        without_mask=tuple(image for image in images if image not in used),
        without_image=tuple(mask for its in paired.values() for mask in its.without_image),
    )


def _case(case: Case, parts: list[tuple[int, Item]]) -> Case:
    return replace(case, mask=replace(parts[0][1], parts=tuple(parts)))
