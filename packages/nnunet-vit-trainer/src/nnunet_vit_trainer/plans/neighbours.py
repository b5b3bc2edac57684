"""What a data set says whose channels are slices and their neighbours (``dataset.json``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from vit_backbone import UserError, quoted, shorten

KEY = "neighbours"
"""Of a converted data set's dataset.json, which every trained model's folder holds too."""


@dataclass(frozen=True)
class Neighbours:
    """Which slices become channels.

    Attributes:
        count: on either side of a slice, 1 or more.
        axis: of the arrays (z, y, x) that nnU-Net cuts slices from, 0 to 2.
    """

    count: int
    axis: int

    @property
    def offsets(self) -> range:
        """How far each channel's slice is from the slice itself, in their order."""
        return range(-self.count, self.count + 1)


def neighbours_of(dataset: Mapping[str, Any], source: str | Path) -> Neighbours | None:
    """Return what a data set's ``dataset.json`` says; ``None`` where nobody converted it.

    Args:
        dataset: the content.
        source: the file, for messages.

    Raises:
        UserError: it is damaged.
    """
    said = dataset.get(KEY)
    if said is None:
        return None
    try:
        found = Neighbours(int(said["count"]), int(said["axis"]))
    except (TypeError, KeyError, ValueError):
        found = Neighbours(0, 0)
    if found.count < 1 or found.axis not in (0, 1, 2):
        raise UserError(f"{source}: {KEY} {quoted(str(said))}: count and axis are expected in it")
    return found


def axis_of(plans: Mapping[str, Any]) -> int:
    """Return the axis of the files' arrays (z, y, x) that nnU-Net's 2D configurations cut.

    Args:
        plans: the data set's own: what they transpose to the front is cut.

    Raises:
        UserError: they name no order of the three axes.
    """
    order = plans.get("transpose_forward")
    if not (isinstance(order, list) and tuple(order) in permutations(range(3))):
        raise UserError(
            f"the plans' transpose_forward {shorten(order, 60)}: 0, 1 and 2 in some order are "
            "expected; plan the data set anew"
        )
    return int(order[0])


def shown_channel(dataset: Mapping[str, Any]) -> int:
    """Return the number of the first channel that is a slice itself, and no neighbour of it.

    Args:
        dataset: the content of a ``dataset.json``.

    Raises:
        UserError: it is damaged.
    """
    found = neighbours_of(dataset, "dataset.json")
    return found.count if found else 0


def check_axis(dataset: Mapping[str, Any], plans: Mapping[str, Any], source: Path) -> None:
    """Refuse plans that cut a volume along another axis than its neighbours lie on.

    Args:
        dataset: the content of a ``dataset.json``.
        plans: what is to be trained by.
        source: the file of the former, for messages.

    Raises:
        UserError: they do; the neighbours would be shifts within a slice.
    """
    found = neighbours_of(dataset, source)
    if found and found.axis != (cut := axis_of(plans)):
        raise UserError(
            f"{source}: channels are neighbours along axis {found.axis} of (z, y, x), and "
            f"{plans['plans_name']} cuts along axis {cut}; convert the first data set by plans "
            "that cut as these do (nnUNetv2_neighbours_vit -p), or plan this one as it was"
        )
