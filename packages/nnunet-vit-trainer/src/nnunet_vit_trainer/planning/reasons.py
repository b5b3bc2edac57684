"""Why a plan is as it is: lines of a name and a text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_backbone import shorten

from .choice import FINEST, WIDE, Choice, Given, resampled
from .memory import GIB, Line, countable
from .tiles import holds, padding, patches_of, wasted_tokens

Reasons = list[tuple[str, str]]


def reasons_of_memory(memory: float, source: str, line: Line) -> Reasons:
    """Say what memory there is, and what a step takes of it.

    Args:
        memory: in bytes.
        source: where that is from.
        line: what a step takes.
    """
    usable, fixed = countable(memory) / GIB, line.fixed / GIB
    million = line.per_pixel * 1e6 / GIB
    return [
        ("memory", f"{memory / GIB:.1f} GiB, {source}; {usable:.1f} may be counted"),
        ("network", f"{fixed:.2f} GiB, and {million:.2f} for a million pixels of a batch"),
    ]


def reasons_of_choice(
    given: Given, choice: Choice, widths: Mapping[str, float], nnunet: Mapping[str, Any]
) -> Reasons:
    """Say why spacing, tile and batch are as they are.

    Args:
        given: what it was chosen for.
        choice: that was made.
        widths: of each class's typical object, in nnU-Net's pixels.
        nnunet: nnU-Net's own 2D configuration.
    """
    return [
        ("objects", _objects(given, widths)),
        ("spacing", _spacing(given, choice, nnunet["spacing"])),
        ("tile", _tile(given, choice)),
        ("padding", _padding(given, choice, nnunet["patch_size"])),
        ("batch", _batch(given, choice)),
    ]


def reasons_of_unseen(classes: Sequence[str]) -> Reasons:
    """Say which classes had no say, since no mask that was looked at holds one of their objects.

    Args:
        classes: their names.
    """
    said = f"{shorten(', '.join(classes), 200)}: no whole object in the masks that were looked at"
    return [("unseen", said)] if classes else []


def _objects(given: Given, widths: Mapping[str, float]) -> str:
    if not widths:
        return "no whole one in the masks that were looked at"
    name, width = min(widths.items(), key=lambda item: item[1])
    patch = max(given.patch)
    smallest = "" if len(widths) == 1 else f", smallest of {len(widths)} classes"
    return f"{name}{smallest}: {width:.0f} px, {width / patch:.1f} patches of {patch} px"


def _spacing(given: Given, choice: Choice, spacing: Sequence[float]) -> str:
    now = " x ".join(f"{of / choice.factor:.3g}" for of in spacing)
    if choice.factor == 1:
        return f"{now}, nnU-Net's own; {_bound(given, choice)}"
    wide = (given.width or 0) * choice.factor / max(given.patch)
    return f"{now}, {choice.factor:.2f} times finer: {wide:.1f} patches; {_bound(given, choice)}"


def _bound(given: Given, choice: Choice) -> str:
    """Say what keeps pixels from being finer."""
    if choice.bound == "tile":
        return f"finer fits {'no tile' if given.tile is None else 'not train.patch_size'}"
    if choice.bound == "finest":
        return f"a patch more is over {FINEST:g} times"
    return f"{WIDE} are enough" if given.width else "there are no objects to widen"


def _tile(given: Given, choice: Choice) -> str:
    (height, width), (rows, columns) = choice.tile, patches_of(choice.tile, given.patch)
    image = resampled(given.image, choice.factor)
    held = "holds" if holds(choice.tile, image) else "a part of"
    whose = "" if given.tile is None else " (train.patch_size)"
    return (
        f"{height} x {width} px{whose}, {rows} x {columns} patches: {held} the median image, "
        f"{image[0]:.0f} x {image[1]:.0f}"
    )


def _padding(given: Given, choice: Choice, nnunet: Sequence[int]) -> str:
    image = resampled(given.image, choice.factor)
    wasted = wasted_tokens(choice.tile, image, given.patch)
    theirs = wasted_tokens(nnunet, given.image, given.patch)
    of = math.prod(patches_of(nnunet, given.patch))
    return (
        f"{padding(choice.tile, given.patch):.1%}, {wasted} tokens; nnU-Net's "
        f"{nnunet[0]} x {nnunet[1]}: {padding(nnunet, given.patch):.1%}, {theirs} tokens of {of}"
    )


def _batch(given: Given, choice: Choice) -> str:
    fitting = f"memory is enough for {choice.fitting}"
    if given.batch is not None:
        return f"{choice.batch} (train.batch_size); {fitting}"
    return (
        f"{choice.batch}: {fitting}, {given.share:.0%} of the data set are {choice.allowed}, at "
        f"least {given.fewest}"
    )
