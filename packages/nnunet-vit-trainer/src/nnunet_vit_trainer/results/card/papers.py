"""The papers of the parts of a model."""

from importlib import resources
from typing import Any

from nnunet_vit_trainer.checkpoints.releases import Release

_HEADS = {"unetr": ("hatamizadeh2022unetr",), "segformer": ("xie2021segformer",)}


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
