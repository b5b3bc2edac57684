"""The backbone families and the rule that turns a family and a size into a timm name.

No torch here: configs are checked against this table before anything heavy is imported.
"""

from typing import TypedDict

from .errors import UserError


class ModelConfig(TypedDict):
    """One family of backbones.

    Attributes:
        sizes: size name -> timm model name.
        default_size: the size that ``model_size=None`` means.
        patch_size: side of a patch in pixels.
        on_hub: whether timm's hub holds this family's own weights. Where it does not, the user
            gives a ``checkpoint_path``.
        source: where the weights come from, for messages.
    """

    sizes: dict[str, str]
    default_size: str
    patch_size: int
    on_hub: bool
    source: str


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
    },
    # timm's own weights under these two names are ImageNet's MAE, not the family's.
    "retfound": {
        "sizes": {"large": "vit_large_patch16_224.mae"},
        "default_size": "large",
        "patch_size": 16,
        "on_hub": False,
        "source": "the RETFound release (RETFound_mae_natureCFP.pth and others, gated)",
    },
    "visionfm": {
        "sizes": {"base": "vit_base_patch16_224.mae"},
        "default_size": "base",
        "patch_size": 16,
        "on_hub": False,
        "source": "the VisionFM release (VFM_Fundus_weights.pth and others)",
    },
}


def resolve_backbone(model_name: str, model_size: str | None = None) -> str:
    """Name the timm model of a family and size; any other name is taken as a timm name.

    Args:
        model_name: a family of `MODEL_CONFIGS`, or a timm model name.
        model_size: a size of the family; ``None`` is the family's default. A timm name has its
            size in it, so with one ``model_size`` is not looked at.

    Raises:
        UserError: the family does not have that size.
    """
    family = MODEL_CONFIGS.get(model_name)
    if family is None:
        return model_name
    size = model_size or family["default_size"]
    if size not in family["sizes"]:
        raise UserError(
            f"backbone {model_name!r} has no size {size!r}; it has {', '.join(family['sizes'])}"
        )
    return family["sizes"][size]
