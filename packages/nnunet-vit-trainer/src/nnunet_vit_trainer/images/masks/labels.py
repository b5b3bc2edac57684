"""Which value or colour of the masks is which label: as it was said, or as it is plain to see."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_vit_trainer.images.reading.pixels import Pixels
from vit_backbone import UserError, shorten

from .named import BACKGROUND, Named
from .values import Values, as_colours, numbers_of, say

_MOST_UNNAMED = 30
_MOST_SMOOTH, _BRIGHT = 8, 200
"""More values than that, of which some are bright, look like edges from black to white."""
_NOTHING = "all {} masks are background everywhere: there is nothing to learn in them"
_ADVICE = "say which is which: --labels"


@dataclass(frozen=True)
class Labelling:
    """From the masks' values to nnU-Net's labels.

    Attributes:
        values: the values of each label, whose number is its place: ``background`` is 0.
        by_colour: whether they are colours 0xRRGGBB.
        threshold: see `values.values_of`.
    """

    values: dict[str, tuple[int, ...]]
    by_colour: bool = False
    threshold: int | None = None

    @property
    def numbers(self) -> dict[str, int]:
        """The labels as dataset.json has them."""
        return {name: number for number, name in enumerate(self.values)}

    @property
    def by_value(self) -> dict[int, int]:
        """The label's number of each value."""
        return {v: n for n, values in enumerate(self.values.values()) for v in values}

    def say(self, value: int) -> str:
        """Say a value, or a colour as ``#rrggbb``."""
        return say(value, by_colour=self.by_colour)

    def counted(self, values: Values) -> dict[int, int]:
        """Return how many pixels of a mask there are of each value, as this labelling has them."""
        return as_colours(values) if self.by_colour else values.pixels

    def apply(self, mask: Pixels) -> np.ndarray:
        """Return a mask's labels: uint8 of its size.

        Raises:
            UserError: a value that is no label's.
        """
        numbers = numbers_of(mask, self.threshold, by_colour=self.by_colour)
        known = np.array(sorted(self.by_value))
        at = np.searchsorted(known, numbers).clip(max=len(known) - 1)
        if (known[at] != numbers).any():
            raise UserError("has values that it did not have a moment ago")
        return np.array([self.by_value[value] for value in known.tolist()], np.uint8)[at]


def decide(masks: Mapping[str, Values], named: Named | None, threshold: int | None) -> Labelling:
    """Decide which value is which label.

    Args:
        masks: what they hold, by their files' names; at least one.
        named: what the user says; ``None``: it must be plain: one value beside 0, or 1, 2, 3, ...
        threshold: see `values.values_of`.

    Raises:
        UserError: values that nobody named, or of which it is not plain what they are.
    """
    _refuse_other_palettes(masks, named)
    if named is None:
        # GIFs number colours anew: a palette whose 0 is not black does not say what 0 is.
        coloured = any(values.coloured or values.palette.get(0) for values in masks.values())
        labelling = Labelling({}, coloured, threshold)
        found = _Found.of(masks, labelling)
        return Labelling(_plain(found, labelling, masks), coloured, threshold)
    labelling = Labelling(named.values, named.by_colour, threshold)
    _refuse_unnamed(masks, labelling)
    background = {*labelling.values[BACKGROUND]}
    if all({*labelling.counted(values)} <= background for values in masks.values()):
        raise UserError(_NOTHING.format(len(masks)))
    return labelling


@dataclass(frozen=True)
class _Found:
    """The values of all masks: in how many pixels, in how many masks, and in which one first."""

    pixels: Counter[int]
    masks: Counter[int]
    first: dict[int, str]

    @classmethod
    def of(cls, masks: Mapping[str, Values], labelling: Labelling) -> "_Found":
        found = cls(Counter(), Counter(), {})
        for name, values in masks.items():
            counted = labelling.counted(values)
            found.pixels.update(counted)
            found.masks.update(counted.keys())
            for value in counted:
                found.first.setdefault(value, name)
        return found


def _plain(
    found: _Found, labelling: Labelling, masks: Mapping[str, Values]
) -> dict[str, tuple[int, ...]]:
    """Return the labels where they are plain to see."""
    values = sorted(found.pixels)
    others = [value for value in values if value != 0]
    if not others:
        raise UserError(_NOTHING.format(len(masks)))
    if 0 in values and len(others) == 1:
        return {BACKGROUND: (0,), "foreground": (others[0],)}
    plain = 0 in values and others == list(range(1, len(others) + 1))
    if plain and not labelling.by_colour and len(others) <= _MOST_UNNAMED:
        return {BACKGROUND: (0,), **{f"label_{value}": (value,) for value in others}}
    rarest = min(others, key=lambda value: (found.masks[value], found.pixels[value]))
    said = ", ".join(labelling.say(value) for value in values[:8])
    said += f", ... ({len(values)} in all)" if len(values) > 8 else ""
    what = "colours" if labelling.by_colour else "values"
    where = f"{labelling.say(rarest)} in {found.masks[rarest]} of {len(masks)} masks"
    raise UserError(
        f"{what} {said} are in the masks ({where}, such as {found.first[rarest]}): "
        f"{_hint(found, labelling)}"
    )


def _hint(found: _Found, labelling: Labelling) -> str:
    """Say what many or odd values may be, and what to give."""
    values = sorted(found.pixels)
    lossy = any(name.lower().endswith((".jpg", ".jpeg", ".webp")) for name in found.first.values())
    if lossy or (len(values) > _MOST_SMOOTH and (labelling.by_colour or max(values) > _BRIGHT)):
        return (
            f"{'JPEG or WebP smears them:' if lossy else 'smoothed edges?'} --threshold 128 makes "
            "two classes of grey masks; save others as PNG, without smoothing"
        )
    if len(values) > _MOST_UNNAMED:
        return f"single objects? --threshold 1 makes one class of all but 0; else {_ADVICE} ..."
    background = "" if 0 in values else f"background={labelling.say(values[0])} "
    rest = [value for value in values if value != 0] if 0 in values else values[1:]
    names = " ".join(f"NAME{i}={labelling.say(value)}" for i, value in enumerate(rest[:4], 1))
    more = " ..." if len(rest) > 4 else ""
    ignore = not labelling.by_colour and 255 in rest and len(rest) > 1
    return f"{_ADVICE} {background}{names}{more}" + (
        " (ignore=255, if that is what nobody annotated)" if ignore else ""
    )


def _refuse_unnamed(masks: Mapping[str, Values], labelling: Labelling) -> None:
    known = labelling.by_value
    faults = []
    for name, values in masks.items():
        if values.coloured and not labelling.by_colour:
            faults.append(f"{name} has colours, but --labels names values")
            continue
        unknown = {v: n for v, n in labelling.counted(values).items() if v not in known}
        if unknown:
            value = max(unknown, key=lambda v: unknown[v])
            near = min(known, key=lambda k: _distance(k, value, by_colour=labelling.by_colour))
            label = [*labelling.values][known[near]]
            nearest = ", ".join(map(labelling.say, labelling.values[label]))
            more = f", and {len(unknown) - 1} other values" if len(unknown) > 1 else ""
            seen = "" if labelling.by_colour else values.palette.get(value)
            colour = f", shown as {say(seen, by_colour=True)}," if seen else ""
            faults.append(
                f"{name} has {unknown[value]:,} pixels of {labelling.say(value)}{colour} (nearest: "
                f"{shorten(label, 40)}, {shorten(nearest, 40)}){more}"
            )
    if faults:
        rest = f"; and {len(faults) - 2} more masks" if len(faults) > 2 else ""
        raise UserError(
            f"{'; '.join(faults[:2])}{rest}: --labels names all values of the masks; values "
            "between them come from JPEG or smoothed edges (--threshold 128 makes two classes)"
        )


def _refuse_other_palettes(masks: Mapping[str, Values], named: Named | None) -> None:
    """Refuse values that are shown in other colours elsewhere: they may be numbered anew there."""
    if named is not None and named.by_colour:
        return
    seen: dict[int, tuple[int, str]] = {}
    for name, values in masks.items():
        for value, colour in values.palette.items():
            other, first = seen.setdefault(value, (colour, name))
            if other != colour:
                raise UserError(
                    f"value {value} is {say(other, by_colour=True)} in {first} and "
                    f"{say(colour, by_colour=True)} in {name}: each has a palette of its own; name "
                    "the colours: --labels NAME=#rrggbb ..."
                )


def _distance(one: int, other: int, *, by_colour: bool) -> int:
    """How far two values are apart, or the channels of two colours in all."""
    if not by_colour:
        return abs(one - other)
    return sum(abs((one >> shift & 255) - (other >> shift & 255)) for shift in (0, 8, 16))
