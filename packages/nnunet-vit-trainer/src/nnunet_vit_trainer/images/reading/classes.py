"""A mask for each class, put together to one."""

from collections.abc import Sequence

import numpy as np

from nnunet_vit_trainer.images.finding.sources import Item
from vit_backbone import UserError

from .pixels import Pixels, shown


def composed(parts: Sequence[tuple[int, Item, Pixels]], threshold: int | None = None) -> Pixels:
    """Return one mask of several binary ones.

    Args:
        parts: a label's number, its file and what is in it, at least one; all of one size.
        threshold: what is as bright as this is foreground; ``None``: all that is not 0, which is
            of one value then.

    Raises:
        UserError: naming a file of several values, or two that overlap.
    """
    its = parts[0][2]
    numbers = np.zeros(its.size, np.uint8)
    taken: list[tuple[Item, np.ndarray]] = []
    for number, item, mask in parts:
        inside = _foreground(item, mask, threshold)
        for other, others in taken:
            if both := int((others & inside).sum()):
                raise UserError(
                    f"{item} and {other} overlap in {both:,} pixels; nnU-Net has one class for "
                    "each pixel: decide which, or make a data set of each class"
                )
        numbers[inside] = number
        taken.append((item, inside))
    return Pixels(numbers[None], ("grey",), its.geometry)


def _foreground(item: Item, mask: Pixels, threshold: int | None) -> np.ndarray:
    seen = shown(mask)
    if threshold is not None:
        if mask.palette and (seen != seen[:1]).any():
            raise UserError(f"{item} has a palette; --threshold is for masks of grey values")
        return seen.mean(axis=0) >= threshold
    inside = (seen != 0).any(axis=0)
    values = seen[:, inside]
    if (values != values[:, :1]).any():
        found = len(np.unique(values, axis=1)[0])
        raise UserError(
            f"{item} has {found} values beside 0; a mask of one class has one (--threshold 128: "
            "from there on is foreground)"
        )
    return inside
