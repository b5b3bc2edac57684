"""Build a timm ViT that takes images of any size and any number of channels."""

import logging
from pathlib import Path

import timm
from torch import nn

from .errors import UserError
from .families import resolve_backbone
from .weights import find_weights, load_weights

logger = logging.getLogger(__name__)


def create_backbone(
    model_name: str = "dinov3",
    model_size: str | None = None,
    checkpoint_path: str | Path | None = None,
    *,
    pretrained: bool | None = None,
    in_chans: int = 3,
) -> tuple[nn.Module, int, str]:
    """Build a backbone and fill it with weights, completely or not at all.

    Args:
        model_name: a family of `MODEL_CONFIGS` or the name of a timm ViT.
        model_size: a size of the family; ``None`` is its default. Not looked at with a timm name.
        checkpoint_path: a local weight file; it wins over ``pretrained``.
        pretrained: ``None`` is the family's default (its released weights), ``False`` is random
            initialisation.
        in_chans: number of input channels, at least 1. The pretrained patch embedding is adapted:
            summed for 1, repeated and scaled by 3/N for N.

    Returns:
        The module (``num_classes=0``), its patch size in pixels, and its timm name.

    Raises:
        UserError: an unknown name or size, a model that is not a plain ViT, or no channels.
        WeightsError: weights that are missing or do not fill every tensor of the backbone.
    """
    timm_name = resolve_backbone(model_name, model_size)
    weights_file = find_weights(model_name, timm_name, checkpoint_path, pretrained=pretrained)
    backbone = _build(timm_name, in_chans)
    if weights_file is not None:
        logger.info(load_weights(backbone, weights_file).line())
    return backbone, backbone.patch_embed.patch_size[0], timm_name


def _build(timm_name: str, in_chans: int) -> nn.Module:
    if in_chans < 1:
        raise UserError(f"in_chans is {in_chans}; a backbone needs at least 1 input channel")
    if not timm.is_model(timm_name):
        near = timm.list_models(f"*{timm_name.split('.')[0]}*", include_tags=False)[:5]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UserError(f"backbone {timm_name!r} is neither a family nor a timm model{hint}")
    try:
        # Without dynamic_img_size timm takes one size only, or silently fewer patches than asked.
        backbone = timm.create_model(
            timm_name, num_classes=0, in_chans=in_chans, dynamic_img_size=True
        )
    except TypeError as error:
        raise UserError(
            f"timm model {timm_name!r} is not a plain ViT that takes any image size: {error}"
        ) from error
    if not hasattr(backbone, "blocks") or not hasattr(backbone, "num_prefix_tokens"):
        raise UserError(f"timm model {timm_name!r} is not a plain ViT: it has no block sequence")
    # timm's EVA attention (DINOv3 qkvb) calls F.linear with qkv.weight, which goes around an
    # adapter on qkv: LoRA would train nothing. With the bias apart, qkv is called as a module.
    for block in backbone.blocks:
        if hasattr(block.attn, "qkv_bias_separate"):
            block.attn.qkv_bias_separate = True
    return backbone
