"""The masks of a raw data set, as its planner will have them sliced, a sample of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_vit_trainer.training.oversight.cases import sample_of
from vit_backbone import UserError, reason_of

from .objects import areas_in, classes_of, typical_width

_SLICES = 64
"""Slices of a volume in which classes are looked for."""


def typical_widths(
    cases: dict[str, dict[str, Any]],
    spacings: dict[str, Sequence[float]],
    labels: dict[str, Any],
    reader: Any,
    axes: Sequence[int],
    spacing: Sequence[float],
) -> dict[str, float]:
    """Return each class's `typical_width` in pixels after resampling, of a sample of cases.

    Args:
        cases: nnU-Net's, with the file of each one's mask as ``label``.
        spacings: of each case's image. That of its mask may be none, as of TIFFs beside which no
            file says it, or wrong, and nnU-Net takes no notice of it.
        labels: of ``dataset.json``.
        reader: nnU-Net's reader of such files.
        axes: the plans' ``transpose_forward``.
        spacing: that images get, (slices, height, width) after the transposition.

    Raises:
        UserError: a mask that cannot be read.
    """
    classes = classes_of(labels)
    found: dict[str, list[float]] = {name: [] for name in classes}
    for name in sample_of(sorted(cases)):
        try:
            mask, _ = reader.read_seg(cases[name]["label"])
        except Exception as error:  # whatever a library says of a broken file
            raise UserError(f"{cases[name]['label']} cannot be read: {reason_of(error)}") from error
        before = np.array(spacings[name])[list(axes)][1:]
        scale = float(np.prod(before / np.array(spacing)[1:]))
        slices = mask[0].transpose(axes)
        picked = np.linspace(0, len(slices) - 1, min(len(slices), _SLICES)).astype(int)
        for of, values in classes.items():
            found[of] += (areas_in(slices[picked], values, labels.get("ignore")) * scale).tolist()
    widths = {name: typical_width(areas) for name, areas in found.items()}
    return {name: width for name, width in widths.items() if width is not None}
