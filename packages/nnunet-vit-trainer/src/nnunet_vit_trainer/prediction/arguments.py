"""What a predictor is given from Python: checked before any work, each mistake one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vit_backbone import UserError, quoted, reason_of
from vit_backbone.errors import check_count, is_number

_NUMBERS = "buif"
"""numpy's kinds of numbers that an image may hold: truth values, whole numbers, floats."""


def check_options(step: Any, batch_size: object) -> None:
    """Refuse options that cannot be meant; see `Predictor`.

    Raises:
        UserError: naming the first.
    """
    if not is_number(step) or not 0 < float(step) <= 1:
        raise UserError(f"step size {quoted(step)}: above 0 and at most 1 is expected")
    if batch_size is not None:
        check_count("batch size", batch_size)


def device_of(device: torch.device | str) -> torch.device:
    """Return a device once it is sure that it is there.

    Args:
        device: as torch names it.

    Raises:
        UserError: no such device on this machine.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:  # no driver, not compiled in, ...
        raise UserError(
            f"device {quoted(str(device))}: {reason_of(error)}; use cpu, or another that is there"
        ) from error
    return found


def check_array(image: Any) -> None:
    """Refuse what is no image: see `Predictor.predict`.

    Args:
        image: what the caller gave.

    Raises:
        UserError: no numpy array of numbers, a masked one (nothing here would look at its mask), or
            one of another number of axes.
    """
    if not isinstance(image, np.ndarray) or isinstance(image, np.ma.MaskedArray):
        raise UserError(
            f"an image of type {type(image).__name__}: a numpy array without a mask is expected"
        )
    if image.dtype.kind not in _NUMBERS:
        raise UserError(f"an image of {image.dtype}: whole numbers or floats are expected")
    if image.ndim not in (3, 4):
        raise UserError(
            f"an image of shape {image.shape}: (channels, height, width) or (channels, slices, "
            "height, width) is expected"
        )


def spacing_of(spacing: Sequence[float] | None, axes: int) -> list[float]:
    """Return the spacing of an image's axes.

    Args:
        spacing: what the caller gave; ``None`` is 1 everywhere.
        axes: how many the image has, without the channels'.

    Raises:
        UserError: not so many numbers above 0.
    """
    if spacing is None:
        return [1.0] * axes
    try:
        distances = np.asarray(spacing, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        distances = np.empty(0)
    if distances.shape != (axes,) or not (np.isfinite(distances) & (distances > 0)).all():
        raise UserError(f"spacing {quoted(spacing)}: {axes} numbers above 0 are expected")
    return distances.tolist()
