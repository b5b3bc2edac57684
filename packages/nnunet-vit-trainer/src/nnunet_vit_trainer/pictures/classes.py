"""The classes of a data set as they are drawn: name, values in a mask, colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Okabe and Ito's, which the colour-blind tell apart, in an order for grey and for pink images.
_OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
# The share of black or white that later classes are mixed with: they differ in lightness then.
_SHADES = ((0.0, 0.0), (0.4, 0.0), (0.5, 1.0))
IGNORED_COLOUR = "#9a9a9a"


@dataclass(frozen=True)
class ShownClass:
    """A foreground class, or a region of several labels.

    Attributes:
        name: in dataset.json.
        key: in nnU-Net's ``summary.json``.
        values: in masks.
        colour: red, green, blue, 0 to 1.
    """

    name: str
    key: str
    values: tuple[int, ...]
    colour: tuple[float, float, float]


def classes_of(dataset: Mapping[str, Any]) -> list[ShownClass]:
    """List the foreground classes, or regions, of a data set, in nnU-Net's order.

    Args:
        dataset: the content of ``dataset.json``.
    """
    labels = {
        str(name): tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
        for name, value in dataset["labels"].items()
        if name != "ignore"
    }
    regions = any(len(values) > 1 for values in labels.values())
    foreground = [(name, values) for name, values in labels.items() if {*values} != {0}]
    if not regions:
        foreground.sort(key=lambda item: item[1])
    return [
        ShownClass(name, _key(dataset["labels"][name], regions), values, colour_of(number))
        for number, (name, values) in enumerate(foreground)
    ]


def ignored_value(dataset: Mapping[str, Any]) -> int | None:
    """Return the value of what is not annotated, or ``None``."""
    value = dataset["labels"].get("ignore")
    return None if value is None else int(value)


def colour_of(number: int) -> tuple[float, float, float]:
    """Return the colour of the n-th class: after 21 they begin again."""
    base, shade = _OKABE_ITO[number % len(_OKABE_ITO)], number // len(_OKABE_ITO) % len(_SHADES)
    share, other = _SHADES[shade]
    red, green, blue = (
        (1 - share) * int(base[at : at + 2], 16) / 255 + share * other for at in (1, 3, 5)
    )
    return red, green, blue


def mask_of(labels: np.ndarray, shown: ShownClass) -> np.ndarray:
    """Return where a label map, of any shape, holds a class."""
    return np.isin(labels, shown.values)


def errors_of(
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: Sequence[ShownClass],
    ignored: int | None,
) -> np.ndarray:
    """Return where a prediction is wrong in any class; what is not annotated never is.

    Args:
        truth: labels, whole numbers of at least 0, of any shape.
        prediction: of the same shape.
        classes: that count.
        ignored: see `ignored_value`.
    """
    # Labels that belong to the same classes count as the same, so volumes are looked up once.
    kinds: dict[tuple[str, ...], int] = {}
    highest = int(max(truth.max(), prediction.max()))
    kind_of = np.array(
        [
            kinds.setdefault(tuple(s.key for s in classes if value in s.values), len(kinds))
            for value in range(highest + 1)
        ]
    )
    wrong = kind_of[truth] != kind_of[prediction]
    return wrong if ignored is None else wrong & (truth != ignored)


def _key(value: Any, regions: bool) -> str:
    """Name a class as nnU-Net's summary does: ``1``, or ``(1, 2)`` for a region."""
    if regions and isinstance(value, list | tuple):
        return str(tuple(value))
    return str(int(value[0] if isinstance(value, list | tuple) else value))
