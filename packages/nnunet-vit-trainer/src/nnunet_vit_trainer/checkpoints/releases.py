"""Where weights come from, and their licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_backbone import MODEL_CONFIGS


@dataclass(frozen=True)
class Release:
    """Weights as somebody released them.

    Attributes:
        name: of the release.
        licence: of its weights; ``None`` where the release states none.
        source: where they are had from.
        papers: keys of the model card's ``references.bib``.
    """

    name: str
    licence: str | None
    source: str
    papers: tuple[str, ...]


_RELEASES = {
    **{
        family: Release(
            name, MODEL_CONFIGS[family]["licence"], MODEL_CONFIGS[family]["source"], (paper,)
        )
        for family, name, paper in (
            ("dinov3", "DINOv3 (Meta AI)", "simeoni2025dinov3"),
            ("dinov2", "DINOv2 (Meta AI)", "oquab2024dinov2"),
            ("retfound", "RETFound", "zhou2023retfound"),
            ("visionfm", "VisionFM", "qiu2024visionfm"),
        )
    },
    "meddinov3": Release(
        "MedDINOv3",
        None,
        "MedDINOv3's release on the model hub",
        ("li2025meddinov3", "simeoni2025dinov3"),
    ),
    "mae": Release("MAE (Meta AI)", "CC BY-NC 4.0", "timm's mirror of it", ("he2022mae",)),
}
_NNUNET = Release("a checkpoint of nnU-Net", None, "a training of nnU-Net's", ())
_MEDDINOV3_EPS = 1e-6
"""By which plans know it from DINOv3: `vit_backbone.fit_to_checkpoint`."""


def family_of(asked: str, timm_name: str) -> str | None:
    """Return a backbone's family of `MODEL_CONFIGS`.

    Args:
        asked: ``model.backbone``: a family, or a timm name.
        timm_name: what was built.
    """
    if asked in MODEL_CONFIGS:
        return asked
    return next((name for name in ("dinov3", "dinov2") if name in timm_name), None)


def release_of(family: str | None, timm_name: str, options: dict[str, Any]) -> Release | None:
    """Return the release that a model's weights come from, by its backbone.

    Args:
        family: see `family_of`.
        timm_name: of the backbone.
        options: that it was built with, which follow from the weight file.
    """
    if family == "dinov3" and options.get("norm_eps") == _MEDDINOV3_EPS:
        return _RELEASES["meddinov3"]
    if family is None and timm_name.endswith(".mae"):
        return _RELEASES["mae"]
    return _RELEASES.get(family or "")


def release_in(ours: Mapping[str, Any]) -> Release | None:
    """Return the release that a trained model's weights come from; ``None`` where none is known.

    Args:
        ours: the section ``vit`` of derived plans.
    """
    weights, backbone = ours.get("weights"), ours.get("backbone", {})
    if not weights:
        return None
    if weights.get("nnunet_checkpoint"):
        return _NNUNET
    asked = str(ours.get("model", {}).get("backbone") or backbone.get("asked", ""))
    name = str(backbone.get("name", ""))
    return release_of(family_of(asked, name), name, backbone.get("options") or {})
