"""The backbone families and the rule that turns a family and a size into a timm name.

No torch here: configs are checked against this table before anything heavy is imported.
"""

import re
from typing import TYPE_CHECKING, Any, TypedDict

from vit_backbone.errors import UserError, quoted

if TYPE_CHECKING:
    from vit_backbone.weights.checkpoint import Checkpoint


class ModelConfig(TypedDict):
    """One family of backbones.

    Attributes:
        sizes: size name -> timm model name.
        default_size: the size that ``model_size=None`` means.
        patch_size: side of a patch in pixels, at the default size.
        on_hub: whether timm's hub holds this family's own weights. Where it does not, the user
            gives a ``checkpoint_path``.
        source: where the weights come from, for messages.
        licence: of the weights as they were released.
    """

    sizes: dict[str, str]
    default_size: str
    patch_size: int
    on_hub: bool
    source: str
    licence: str


MODEL_CONFIGS: dict[str, ModelConfig] = {
    "dinov3": {
        # Small models have qkv biases that are not zero, so only timm's qkvb variants hold them.
        "sizes": {
            "small": "vit_small_patch16_dinov3_qkvb.lvd1689m",
            "small_plus": "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
            "base": "vit_base_patch16_dinov3.lvd1689m",
            "large": "vit_large_patch16_dinov3.lvd1689m",
            "huge_plus": "vit_huge_plus_patch16_dinov3.lvd1689m",
            "7b": "vit_7b_patch16_dinov3.lvd1689m",
            "large_sat493m": "vit_large_patch16_dinov3.sat493m",
            "7b_sat493m": "vit_7b_patch16_dinov3.sat493m",
        },
        "default_size": "large",
        "patch_size": 16,
        "on_hub": True,
        "source": "the DINOv3 release of Meta AI (gated) or timm's mirror of it",
        "licence": "DINOv3 License (ai.meta.com/resources/models-and-libraries/dinov3-license)",
    },
    "dinov2": {
        "sizes": {
            "small": "vit_small_patch14_dinov2.lvd142m",
            "base": "vit_base_patch14_dinov2.lvd142m",
            "large": "vit_large_patch14_dinov2.lvd142m",
            "giant": "vit_giant_patch14_dinov2.lvd142m",
            "small_reg4": "vit_small_patch14_reg4_dinov2.lvd142m",
            "base_reg4": "vit_base_patch14_reg4_dinov2.lvd142m",
            "large_reg4": "vit_large_patch14_reg4_dinov2.lvd142m",
            "giant_reg4": "vit_giant_patch14_reg4_dinov2.lvd142m",
        },
        "default_size": "large",
        "patch_size": 14,
        "on_hub": True,
        "source": "the DINOv2 release of Meta AI or timm's mirror of it",
        "licence": "Apache-2.0",
    },
    # timm's own weights under these two names are ImageNet's MAE, not the family's.
    "retfound": {
        # The second is RETFound's DINOv2 generation, a ViT-L/14; its file is recognised.
        "sizes": {
            "large": "vit_large_patch16_224.mae",
            "large_dinov2": "vit_large_patch14_dinov2.lvd142m",
        },
        "default_size": "large",
        "patch_size": 16,
        "on_hub": False,
        "source": "the RETFound release (RETFound_mae_natureCFP.pth and others, gated)",
        "licence": "CC BY-NC 4.0",
    },
    "visionfm": {
        "sizes": {"base": "vit_base_patch16_224.mae"},
        "default_size": "base",
        "patch_size": 16,
        "on_hub": False,
        "source": "the VisionFM release (VFM_Fundus_weights.pth and others)",
        "licence": "research and education only, see its LICENSE",
    },
}


def resolve_backbone(model_name: str, model_size: str | None = None) -> str:
    """Name the timm model of a family and size; any other name is taken as a timm name.

    Args:
        model_name: a family of `MODEL_CONFIGS`, or a timm model name.
        model_size: a size of the family; ``None`` is the family's default. A timm name has its
            size in it, so with one ``model_size`` is not looked at.

    Raises:
        UserError: no text, or the family does not have that size.
    """
    if not isinstance(model_name, str):
        raise UserError(f"backbone {quoted(model_name)}: the name of a family or model is expected")
    family = MODEL_CONFIGS.get(model_name)
    if family is None:
        return model_name
    size = family["default_size"] if model_size is None else model_size
    if size not in family["sizes"]:
        raise UserError(
            f"backbone {model_name!r} has no size {size!r}; it has {', '.join(family['sizes'])}"
        )
    return family["sizes"][size]


# (embed_dim, blocks) of the sizes, to tell from a file what it is.
_DIMENSIONS = {
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge_plus",
    (1536, 40): "giant",
    (4096, 40): "7b",
}


def likely_backbone(checkpoint: "Checkpoint") -> tuple[str, str | None] | None:
    """Return the backbone and size that a file is most likely for, or ``None`` without an idea.

    Returns:
        A family and its size, or a timm name and ``None``.
    """
    size = _DIMENSIONS.get((checkpoint.embed_dim, checkpoint.depth))
    names = checkpoint.tensors.keys()
    if size is None or checkpoint.patch_size is None:
        return None
    if "pos_embed" not in names and "cls_token" in names and checkpoint.registers == 4:
        gated = any(name.startswith(("blocks.0.mlp.w1.", "blocks.0.mlp.fc1_g.")) for name in names)
        return _known("dinov3", "small_plus" if size == "small" and gated else size)
    if checkpoint.patch_size == 14 and checkpoint.has_layer_scale:
        return _known("dinov2", f"{size}_reg4" if "reg_token" in names else size)
    if checkpoint.layout == "MAE" and size == "large":
        return _known("retfound", size)
    if checkpoint.layout == "iBOT" and size == "base":
        return _known("visionfm", size)
    return _of_timm(f"vit_{size}_patch{checkpoint.patch_size}_224") if checkpoint.is_plain else None


def likeliest_backbone(checkpoint: "Checkpoint", refused: str | None = None) -> str | None:
    """Name, for a message, the backbone that a file is most likely for; see `likely_backbone`.

    Args:
        checkpoint: the file's content.
        refused: timm's name of an architecture that it does not fit, which is not named.
    """
    found = likely_backbone(checkpoint)
    # Which of DINOv3's two it is, with biases or without, follows from the file.
    if found is None or _without_biases(resolve_backbone(*found)) == _without_biases(refused or ""):
        return None
    name, size = found
    return f"backbone {name!r} with size {size!r}" if size else f"backbone {name!r}"


def _of_timm(name: str) -> tuple[str, None] | None:
    import timm

    return (name, None) if timm.is_model(name) else None


def _known(family: str, size: str) -> tuple[str, str] | None:
    return (family, size) if size in MODEL_CONFIGS[family]["sizes"] else None


def _without_biases(timm_name: str) -> str:
    return timm_name.partition(".")[0].removesuffix("_qkvb")


def _with_or_without_biases(timm_name: str, has_bias: bool) -> str:
    """Name timm's DINOv3 variant for a file: ``_qkvb`` holds q and v biases, the plain one none."""
    plain, tag = _without_biases(timm_name), timm_name.partition(".")[2]
    if "7b" in plain:  # timm has it without biases only
        return timm_name
    return f"{plain}{'_qkvb' if has_bias else ''}.{tag}"


def fit_to_checkpoint(
    model_name: str, model_size: str | None, checkpoint: "Checkpoint | None"
) -> tuple[str, dict[str, Any]]:
    """Name the timm model, and the options to build it with, that a weight file asks for.

    The options follow from the file alone: the grid of its position embedding (so that nothing is
    resampled twice) and how DINOv2 resamples it, MedDINOv3's epsilon, LayerScale where timm's
    model has none. So does the generation of a RETFound file, and whether a DINOv3 one has biases.

    Args:
        model_name: as in `resolve_backbone`.
        model_size: as in `resolve_backbone`.
        checkpoint: the file's content; ``None`` without one.

    Returns:
        The timm name, and keyword arguments for `create_backbone` (empty in the common case).

    Raises:
        UserError: the family does not have that size.
    """
    timm_name = resolve_backbone(model_name, model_size)
    if checkpoint is None:
        return timm_name, {}
    if model_name == "retfound" and checkpoint.has_layer_scale:
        timm_name = resolve_backbone(model_name, "large_dinov2")
    if model_name == "dinov3":
        timm_name = _with_or_without_biases(timm_name, checkpoint.has_qkv_bias)
    options: dict[str, Any] = {}
    if checkpoint.layout == "MedDINOv3":
        options["norm_eps"] = 1e-6  # as it was trained; DINOv3's own is 1e-5
    if checkpoint.has_layer_scale and "dinov" not in timm_name:  # timm's DINO models have it
        options["layer_scale"] = True
    if "dinov2" in timm_name and "_reg" not in timm_name:
        options["pos_embed_resampling"] = "dinov2"
    if checkpoint.grid is not None and checkpoint.patch_size is not None:
        # In the model's own patches, whatever a saved model's were resampled to.
        patch = own_patch_size(timm_name) or checkpoint.patch_size
        options["img_size"] = checkpoint.grid * patch
    return timm_name, options


def own_patch_size(timm_name: str) -> int | None:
    """Return the side of a timm ViT's own patches in pixels; ``None`` of what has none.

    Args:
        timm_name: where it does not say (``flexivit_small``), timm builds it, without memory.
    """
    if said := re.search(r"_patch(\d+)_", timm_name):
        return int(said[1])
    import timm
    import torch

    if not timm.is_model(timm_name):
        return None
    with torch.device("meta"):
        embed = getattr(timm.create_model(timm_name, num_classes=0), "patch_embed", None)
    sides = getattr(embed, "patch_size", None)
    return sides[0] if isinstance(sides, tuple) else None
