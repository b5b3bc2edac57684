"""What a report says of the weights that a run began with."""

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from vit_backbone import MODEL_CONFIGS


def describe_weights(ours: Mapping[str, Any]) -> dict[str, str]:
    """Say which file a run began with, and under which licence its release is.

    Args:
        ours: the section ``vit`` of derived plans.
    """
    weights = ours.get("weights")
    if not weights:
        return {"weights": "random initialisation, no pretrained weights"}
    family = _family_of(ours)
    source = MODEL_CONFIGS[family]["source"] if family else "not known"
    licence = MODEL_CONFIGS[family]["licence"] if family else None
    said = f"{licence}, if it is the release's" if licence else "not known: see where it is from"
    return {
        "weights": PureWindowsPath(str(weights["file"])).name,
        "sha256": str(weights["sha256"]),
        "licence of the weights": said,
        "their source": source,
    }


def _family_of(ours: Mapping[str, Any]) -> str | None:
    asked = ours.get("model", {}).get("backbone", "")
    if asked in MODEL_CONFIGS:
        return str(asked)
    timm_name = str(ours.get("backbone", {}).get("name", ""))
    return next((name for name in ("dinov3", "dinov2") if name in timm_name), None)
