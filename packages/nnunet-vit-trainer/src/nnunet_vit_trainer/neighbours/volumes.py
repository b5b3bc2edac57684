"""A volume's slices, shifted along the axis that nnU-Net cuts slices from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_vit_trainer.plans.neighbours import Neighbours
from vit_backbone import UserError, reason_of

READERS = ("SimpleITKIO", "NibabelIO")
"""nnU-Net's readers that keep the axes of the files."""


def shifted(values: np.ndarray, offset: int, axis: int) -> np.ndarray:
    """Return an array whose slice i is slice i + offset; the outermost ones stand for those beyond.

    Args:
        values: of any shape.
        offset: in slices.
        axis: along which.
    """
    last = values.shape[axis] - 1
    return np.take(values, np.clip(np.arange(last + 1) + offset, 0, last), axis)


def write_shifted(file: Path, of: Neighbours, name_of: Callable[[int], Path]) -> None:
    """Write a channel's file once per offset, in its own type and place.

    Args:
        file: one channel of a volume.
        of: which slices.
        name_of: the file to write, by the number of the offset from 0.

    Raises:
        UserError: unreadable, no volume of more than one slice, or not written.
    """
    try:
        image = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        raise UserError(f"{file} cannot be read: {reason_of(error)}") from error
    values = SimpleITK.GetArrayFromImage(image)
    if values.ndim != 3 or values.shape[of.axis] < 2:
        raise UserError(
            f"{file} has the shape {values.shape}: slices beside each other are expected along "
            f"axis {of.axis}"
        )
    for index, offset in enumerate(of.offsets):
        moved = SimpleITK.GetImageFromArray(shifted(values, offset, of.axis))
        moved.CopyInformation(image)
        try:
            SimpleITK.WriteImage(moved, str(name_of(index)), True)
        except RuntimeError as error:  # of SimpleITK's, a full disk too
            raise UserError(f"{name_of(index)} is not written: {reason_of(error)}") from error
