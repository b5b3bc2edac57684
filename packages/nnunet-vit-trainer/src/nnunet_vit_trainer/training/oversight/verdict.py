"""What a finished validation says of itself: masks that hold nothing, or that were not found."""

from collections.abc import Mapping
from typing import Any


def find_emptiness(summary: Mapping[str, Any]) -> str | None:
    """Say in one line that all masks, or all predictions, of a validation are background.

    Args:
        summary: the content of nnU-Net's ``summary.json``.

    Returns:
        The line, with what to look at; ``None`` where something was predicted, or as it is where
        nothing was counted.
    """
    cases = [case.get("metrics", {}) for case in summary.get("metric_per_case", [])]
    counted = [list(metrics.values()) for metrics in cases if metrics]
    if not counted:
        return None
    filled = sum(any(label.get("n_ref", 0) for label in labels) for labels in counted)
    if not filled:
        return (
            f"the masks of all {len(counted)} validation cases are background: there is nothing to "
            "find in them, so their Dice says nothing; look at the labels in the masks "
            "(nnUNetv2_doctor_vit does)"
        )
    if any(label.get("n_pred", 0) for labels in counted for label in labels):
        return None
    return (
        f"the prediction of all {len(counted)} validation cases is background, though the masks of "
        f"{filled} are not; look at the labels in the masks (nnUNetv2_doctor_vit does), at the "
        "lines Backbone and Input normalisation of the training log, at train.initial_lr and at "
        "the number of steps"
    )
