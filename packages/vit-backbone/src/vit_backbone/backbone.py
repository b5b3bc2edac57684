"""Build a timm ViT that takes images of any size and any number of channels."""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import timm
from timm.layers import HybridEmbed, PatchEmbed
from torch import nn

from vit_backbone.vits.attention import call_qkv
from vit_backbone.vits.families import fit_to_checkpoint, resolve_backbone
from vit_backbone.vits.patches import make_patches_traceable
from vit_backbone.vits.plain import PlainViT, plain_vit
from vit_backbone.vits.pos_embed import use_resampling
from vit_backbone.vits.rope import make_rope_traceable
from vit_backbone.vits.statistics import refuse_unknown
from vit_backbone.vits.unfilled import build_unfilled, is_filled_next, refuse_unfilled
from vit_backbone.weights.files import find_weights, read_checkpoint
from vit_backbone.weights.loading import load_weights

from .errors import UserError, check_count, check_flag, is_count, is_number

logger = logging.getLogger(__name__)


def create_backbone(
    model_name: str = "dinov3",
    model_size: str | None = None,
    checkpoint_path: str | Path | None = None,
    *,
    pretrained: bool | None = None,
    in_chans: int = 3,
    patch_size: int | None = None,
    img_size: int | None = None,
    norm_eps: float | None = None,
    layer_scale: bool = False,
    pos_embed_resampling: str | None = None,
    drop_path_rate: float = 0.0,
    train_patch_embedding: bool | None = None,
    allow_hybrid: bool = False,
) -> tuple[PlainViT, int, str]:
    """Build a backbone and fill it with weights, completely or not at all.

    The last options describe the model that a weight file is for; what they leave open is read
    off the file (`fit_to_checkpoint`), so they are given only where there is none to read: when
    a network is rebuilt from plans, or to be filled from a state dict. No state dict holds them:
    without the file, give what ``fit_to_checkpoint(NAME, SIZE, read_checkpoint(FILE))`` returned.

    One that is built on the meta device, emptied (``to_empty``) and filled from a state dict lacks
    what no state dict holds: RoPE's periods and bands (DINOv3, EVA). Build it on a real device.

    Args:
        model_name: a family of `MODEL_CONFIGS` or the name of a timm ViT.
        model_size: a size of the family; ``None`` is its default. Not looked at with a timm name.
        checkpoint_path: a local weight file or a Hugging Face folder; it wins over ``pretrained``.
        pretrained: ``None`` is the family's default (its released weights), ``False`` is random
            initialisation.
        in_chans: number of input channels, at least 1. The pretrained patch embedding is adapted:
            summed for 1, repeated in turn and scaled by 3/N for N. 2 keep two of its three.
        patch_size: side of a patch in pixels that the patch embedding is resampled to; ``None``
            is the model's own.
        img_size: image side that the position embedding's grid is for, in whole patches of the
            model's own; ``None`` is timm's.
        norm_eps: epsilon of the layer norms, above 0; ``None`` is timm's.
        layer_scale: add LayerScale where timm's model has none.
        pos_embed_resampling: how the position embedding is brought to other grids than its own:
            ``None`` is what the file asks for, else timm's way; ``timm`` is timm's way whatever
            file it is; ``dinov2`` is that of DINOv2 without registers (`pos_embed`).
        drop_path_rate: stochastic depth in training, 0 to below 1.
        train_patch_embedding: whether the patch embedding goes on training under LoRA and
            freezing; ``None`` is `patch_embedding_trains` of the channels.
        allow_hybrid: build a hybrid too, whose maps are coarser than its patches say, for plans
            that version 0.1.0 derived with one.

    Returns:
        The module (``num_classes=0``), its patch size in pixels, and its timm name.

    Raises:
        UserError: an unknown name or size, a model that is not a plain ViT, or impossible options.
        WeightsError: weights that are missing or do not fill every tensor of the backbone.
    """
    check_flag("layer_scale", layer_scale)
    check_flag("allow_hybrid", allow_hybrid)
    for name, value in (
        ("pretrained", pretrained),
        ("train_patch_embedding", train_patch_embedding),
    ):
        if value is not None:
            check_flag(name, value)
    timm_name = resolve_backbone(model_name, model_size)
    refuse_unknown(timm_name)
    file = find_weights(model_name, timm_name, checkpoint_path, pretrained=pretrained)
    checkpoint = None if file is None else read_checkpoint(file)
    timm_name, read_off = fit_to_checkpoint(model_name, model_size, checkpoint)
    given = {
        "patch_size": patch_size,
        "img_size": img_size,
        "norm_eps": norm_eps,
        "layer_scale": layer_scale or None,
        "pos_embed_resampling": pos_embed_resampling,
    }
    options = read_off | {name: value for name, value in given.items() if value is not None}
    build = partial(
        _build,
        timm_name,
        in_chans,
        drop_path_rate=drop_path_rate,
        allow_hybrid=allow_hybrid,
        **options,
    )
    backbone = build_unfilled(build) if is_filled_next() or file is not None else build()
    if img_size is not None and img_size % backbone.trained_patch_size:
        raise UserError(
            f"img_size {img_size}: {timm_name!r} has patches of {backbone.trained_patch_size} px; "
            "give a multiple"
        )
    backbone.trained_chans = (checkpoint.in_chans if checkpoint else None) or 3
    backbone.train_patch_embedding = train_patch_embedding
    if file is not None:
        logger.info(load_weights(backbone, file, checkpoint).line())
        refuse_unfilled(backbone)
    return backbone, backbone.patch_embed.patch_size[0], timm_name


def _build(
    timm_name: str,
    in_chans: int,
    *,
    patch_size: int | None = None,
    img_size: int | None = None,
    norm_eps: float | None = None,
    layer_scale: bool = False,
    pos_embed_resampling: str | None = None,
    drop_path_rate: float = 0.0,
    allow_hybrid: bool = False,
) -> PlainViT:
    _check_options(in_chans, patch_size, img_size, norm_eps, drop_path_rate)
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate}
    if layer_scale:
        options["init_values"] = 1e-5
    try:
        # Without dynamic_img_size timm takes one size only, or silently fewer patches than asked.
        created = timm.create_model(
            timm_name, num_classes=0, in_chans=in_chans, dynamic_img_size=True, **options
        )
    except TypeError as error:
        raise UserError(
            f"timm model {timm_name!r} is not a plain ViT that takes any image size: {error}"
        ) from error
    _refuse_unplain(created, timm_name, (PatchEmbed, HybridEmbed) if allow_hybrid else PatchEmbed)
    backbone = plain_vit(created)
    _norm_features_finally(backbone)
    _freeze_pooling(backbone)
    if norm_eps is not None:
        _set_norm_eps(backbone, norm_eps, timm_name)
    make_rope_traceable(backbone)
    make_patches_traceable(backbone)
    use_resampling(backbone, pos_embed_resampling)
    call_qkv(backbone)
    _set_geometry(backbone, patch_size, img_size)
    return backbone


def _check_options(
    in_chans: int,
    patch_size: int | None,
    img_size: int | None,
    norm_eps: float | None,
    drop_path_rate: float,
) -> None:
    if not is_count(in_chans):
        raise UserError(f"in_chans is {in_chans!r}; a backbone needs at least 1 input channel")
    for name, value in (("patch_size", patch_size), ("img_size", img_size)):
        if value is not None:
            check_count(name, value)
    if norm_eps is not None and not (is_number(norm_eps) and 0 < norm_eps < math.inf):
        raise UserError(f"norm_eps {norm_eps!r}: a number above 0 is expected")
    if not (is_number(drop_path_rate) and 0 <= drop_path_rate < 1):
        raise UserError(
            f"drop_path_rate {drop_path_rate!r}: a number of at least 0 and below 1 is expected"
        )


def _refuse_unplain(
    backbone: nn.Module, timm_name: str, embeddings: type | tuple[type, ...]
) -> None:
    """Refuse what has no map of H/p x W/p behind each block.

    A hybrid's patch embedding sees the map of a convolutional stem: its ``patch_size`` says nothing
    about the image, and the features would be coarser than the heads take them to be.
    """
    embed = getattr(backbone, "patch_embed", None)
    if not hasattr(backbone, "blocks") or not hasattr(backbone, "num_prefix_tokens"):
        why = "it has no block sequence"
    elif not isinstance(embed, embeddings):
        kind = "none" if embed is None else type(embed).__name__
        why = f"its patch embedding is not one convolution of the image (PatchEmbed) but {kind}"
    else:
        return
    raise UserError(f"timm model {timm_name!r} is not a plain ViT: {why}")


def _norm_features_finally(backbone: PlainViT) -> None:
    """Where timm norms after pooling (``fc_norm``), norm the tokens: there is no pooling here."""
    after_pooling = getattr(backbone, "fc_norm", None)
    if isinstance(backbone.norm, nn.Identity) and isinstance(after_pooling, nn.Module):
        backbone.norm, backbone.fc_norm = after_pooling, nn.Identity()


def _freeze_pooling(backbone: nn.Module) -> None:
    """Freeze attention pooling (SigLIP's ``attn_pool``): it never runs, and DDP would wait for it.

    It stays a part of the model, since files and checkpoints hold its weights.
    """
    if getattr(backbone, "attn_pool", None) is not None:
        backbone.attn_pool.requires_grad_(False)


def _set_norm_eps(backbone: nn.Module, norm_eps: float, timm_name: str) -> None:
    norms = [module for module in backbone.modules() if isinstance(module, nn.LayerNorm)]
    if not norms:
        raise UserError(f"norm_eps {norm_eps}: timm model {timm_name!r} has no LayerNorm")
    for norm in norms:
        norm.eps = norm_eps


def _set_geometry(backbone: PlainViT, patch_size: int | None, img_size: int | None) -> None:
    """Resize the patch embedding and the position embedding's grid, which keeps its side."""
    native = backbone.patch_embed.patch_size[0]
    # The patch size that weight files have; load_weights resamples from it on purpose only.
    backbone.trained_patch_size = native
    # What is no multiple, and so perhaps no whole patch, is refused as soon as this is built.
    grid = max(1, img_size // native) if img_size else backbone.patch_embed.grid_size[0]
    wanted = patch_size or native
    if wanted != native or grid != backbone.patch_embed.grid_size[0]:
        backbone.set_input_size((grid * wanted, grid * wanted), (wanted, wanted))
