"""Which mask belongs to which image: by their names, as such folders are named in the field."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vit_backbone import UserError, quoted

from .sources import Item, names_of

_IMAGE = r"images?|img|im|photo|picture|raw|orig|original|scan|volume|vol|training|test"
_MASK = (
    r"masks?|labels?|seg|segm|segmentations?|gt|ground_?truth|annotations?|annot|anno|manual\d?|"
    r"target"
)
# Behind a sign or a digit at the end; before a sign or a digit at the beginning.
_AROUND = r"[-_. ]({0})$|(?<=\d)({0})$|^({0})[-_. ]|^({0})(?=\d)|^({0})$"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""nnU-Net's own names: a case's channels are files of it."""


@dataclass(frozen=True)
class Case:
    """An image and its mask.

    Attributes:
        name: of the case in the data set.
        images: a file for each channel, or one for all.
        mask: ``None`` of a test image.
    """

    name: str
    images: tuple[Item, ...]
    mask: Item | None


@dataclass(frozen=True)
class Paired:
    """What belongs together.

    Attributes:
        cases: in the order of their names.
        channels: what the files of a case are called, where there are several.
        without_mask: images that have none.
        without_image: masks that have none.
    """

    cases: list[Case]
    channels: tuple[str, ...] = ()
    without_mask: tuple[Item, ...] = ()
    without_image: tuple[Item, ...] = ()


_Reading = Callable[[str], tuple[str, str]]
"""From a name to the case's name, and the channel's."""


def is_mask(name: str, suffix: str | None = None) -> bool:
    """Say whether a name tells that this is a mask.

    Args:
        name: without the ending.
        suffix: what the names of masks end with; ``None``: a word such as ``_mask``.
    """
    if suffix is not None:
        return name.endswith(suffix) and name != suffix
    return _without(_MASK, name) is not None


def image_word_of(name: str) -> bool:
    """Say whether a name is nothing but a word for an image, such as ``image``."""
    return _without(_IMAGE, name) == ""


def pair(images: Sequence[Item], masks: Sequence[Item], suffix: str | None = None) -> Paired:
    """Pair images with masks by their names, in the way that pairs the most.

    Names are equal, or but for a word such as ``_mask``, ``label``, ``image``; or images are
    called as nnU-Net calls them, ``<case>_0000``, a file for each channel.

    Args:
        images: all of them.
        masks: all of them.
        suffix: see `is_mask`.

    Raises:
        UserError: two images, or two masks, of the same name, or the same but for capitals.
    """
    ways_of_masks = [_whole, _bare(_MASK)] if suffix is None else [_less(suffix)]
    ways_of_images: list[_Reading] = [_whole, _channels, _bare(_IMAGE)]
    best: tuple[dict[str, list[tuple[str, Item]]], dict[str, Item]] | None = None
    most = -1
    for read_image, read_mask in itertools.product(ways_of_images, ways_of_masks):
        by_image = _grouped(images, read_image)
        by_mask = _grouped(masks, read_mask)
        certain = read_image is _whole and read_mask is ways_of_masks[0]
        if not certain and not (_uniform(by_image) and all(len(g) == 1 for g in by_mask.values())):
            continue
        if certain:
            _refuse_twice(by_image)
            _refuse_twice(by_mask)
        found = len(by_image.keys() & by_mask.keys())
        if found > most:
            most, best = found, (by_image, {k: g[0][1] for k, g in by_mask.items()})
    assert best is not None  # the first way is always one
    return _paired(*best)


def pair_each(
    folders: Iterable[tuple[Sequence[Item], Sequence[Item]]], suffix: str | None = None
) -> Paired:
    """Pair the images and masks of each folder, and never those of two.

    Args:
        folders: images and masks of each.
        suffix: see `is_mask`.

    Raises:
        UserError: see `pair`; two cases of one name are refused in different folders too.
    """
    paired = [pair(images, masks, suffix) for images, masks in folders]
    cases = sorted((case for its in paired for case in its.cases), key=lambda case: case.name)
    by_name = defaultdict(list)
    for case in cases:
        by_name[case.name].append(("", case.images[0]))
    _refuse_twice(by_name)
    check_names([*by_name])
    return Paired(
        cases,
        next((its.channels for its in paired if its.cases), ()),
        tuple(image for its in paired for image in its.without_mask),
        tuple(mask for its in paired for mask in its.without_image),
    )


def alone(images: Sequence[Item], files: int | None = None) -> list[Case]:
    """Take images that have no masks as cases, by the names that they have.

    Args:
        images: all of them.
        files: of a case, as nnU-Net names them where there are several; where it is one, four
            digits are a number; ``None``: as there are.

    Raises:
        UserError: two of the same name, or cases without one of the files.
    """
    groups = _grouped(images, _channels)
    several = any(len(group) > 1 for group in groups.values())
    if files in (1, None) and ((files and several) or not _uniform(groups)):
        groups = _grouped(images, _whole)
    _refuse_twice(groups)
    check_names([*groups])
    for name, group in groups.items():
        if files is not None and len(group) != files:
            raise UserError(f"image {quoted(name)} has {len(group)} files, not {files}")
    return [Case(name, _files(group), None) for name, group in sorted(groups.items())]


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no text is, that nnU-Net's masks have, or that are one file somewhere.

    Args:
        names: of all cases.

    Raises:
        UserError: naming one, or two.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise UserError(f"case {quoted(name)} has a name that cannot be printed; rename it")
        if name.endswith("_seg"):
            raise UserError(
                f"case {quoted(name)} ends in _seg, as what nnU-Net preprocesses of masks does: it "
                "would leave the case out; rename it"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(
                f"cases {quoted(other)} and {quoted(name)} differ by capitals alone, which some "
                "systems do not tell apart; rename one"
            )


def _paired(by_image: dict[str, list[tuple[str, Item]]], by_mask: dict[str, Item]) -> Paired:
    check_names([*by_image])
    both = sorted(by_image.keys() & by_mask.keys())
    channels = tuple(channel for channel, _ in sorted(by_image[both[0]])) if both else ()
    return Paired(
        cases=[Case(name, _files(by_image[name]), by_mask[name]) for name in both],
        channels=channels if len(channels) > 1 else (),
        without_mask=tuple(i for n in sorted(by_image.keys() - {*both}) for _, i in by_image[n]),
        without_image=tuple(by_mask[name] for name in sorted(by_mask.keys() - {*both})),
    )


def _grouped(items: Sequence[Item], reading: _Reading) -> dict[str, list[tuple[str, Item]]]:
    groups = defaultdict(list)
    for item in items:
        case, channel = reading(item.name)
        groups[case].append((channel, item))
    return dict(groups)


def _uniform(groups: dict[str, list[tuple[str, Item]]]) -> bool:
    """Whether all cases have the same channels, each once: 0000, 0001, ..., or a single file."""
    channels = {tuple(sorted(channel for channel, _ in group)) for group in groups.values()}
    if len(channels) != 1:
        return False
    (only,) = channels
    return only == ("",) or only == tuple(f"{number:04d}" for number in range(len(only)))


def _refuse_twice(groups: dict[str, list[tuple[str, Item]]]) -> None:
    for name, group in groups.items():
        counts = Counter(channel for channel, _ in group)
        again = [channel for channel, count in counts.items() if count > 1]
        if again:
            files = [item for channel, item in group if channel == again[0]]
            raise UserError(
                f"{names_of(files)} have the same name, {quoted(name)}; each needs its own"
            )


def _files(group: list[tuple[str, Item]]) -> tuple[Item, ...]:
    return tuple(item for _, item in sorted(group, key=lambda one: one[0]))


def _whole(name: str) -> tuple[str, str]:
    return name, ""


def _channels(name: str) -> tuple[str, str]:
    match = _CHANNEL.fullmatch(name)
    return (match["case"], match["channel"]) if match else (name, "")


def _bare(words: str) -> _Reading:
    return lambda name: (_without(words, name) or name, "")


def _less(suffix: str) -> _Reading:
    return lambda name: (name.removesuffix(suffix), "")


def _without(words: str, name: str) -> str | None:
    """Return a name without the word in it, or ``None`` where there is no such word."""
    bare, found = re.subn(_AROUND.format(words), "", name, count=1, flags=re.IGNORECASE)
    return bare if found else None
