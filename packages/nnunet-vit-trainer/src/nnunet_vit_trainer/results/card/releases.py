"""Where weights come from, their licence, and the papers of the parts of a model."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

from vit_backbone import MODEL_CONFIGS


@dataclass(frozen=True)
class Release:
    """Weights as somebody released them.

    Attributes:
        name: of the release.
        licence: of its weights; ``None`` where the release states none.
        papers: keys of ``references.bib``.
    """

    name: str
    licence: str | None
    papers: tuple[str, ...]


_RELEASES = {
    **{
        family: Release(name, MODEL_CONFIGS[family]["licence"], (paper,))
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
        ("li2025meddinov3", "simeoni2025dinov3"),
    ),
    "mae": Release("MAE (Meta AI)", "CC BY-NC 4.0", ("he2022mae",)),
}
_MEDDINOV3_EPS = 1e-6
"""By which plans know it from DINOv3: `vit_backbone.fit_to_checkpoint`."""

_HEADS = {"unetr": ("hatamizadeh2022unetr",), "segformer": ("xie2021segformer",)}


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


def papers_of(
    release: Release | None, head: str, options: dict[str, Any], lora: dict[str, Any] | None
) -> list[str]:
    """List the papers of a model's parts, as keys of ``references.bib``.

    Args:
        release: of its weights; ``None``: none that is known.
        head: its name.
        options: of the head.
        lora: its options; ``None`` without LoRA.
    """
    papers = ["isensee2021nnunet", "dosovitskiy2021vit", "wightman2019timm"]
    papers += release.papers if release else ()
    papers += _HEADS.get(head, ())
    papers += ["li2022vitdet"] if options.get("neck") == "pyramid" else []
    if lora is not None:
        papers.append("hu2022lora")
        papers += ["liu2024dora"] if lora.get("dora") else []
        papers += ["kalajdzievski2023rslora"] if lora.get("rslora") else []
    return papers


def bibtex_of(papers: list[str]) -> str:
    """Return the entries of ``references.bib``, in the order asked for.

    Args:
        papers: their keys.
    """
    text = (resources.files("nnunet_vit_trainer.results.card") / "references.bib").read_text(
        encoding="utf-8"
    )
    entries = {entry.split("{", 1)[1].split(",", 1)[0]: entry for entry in text.split("\n\n")}
    return "\n\n".join(entries[paper].strip() for paper in papers) + "\n"
