"""Patch features of a ViT.  B: batch, C: embed_dim, H, W: image, p: patch size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vit_backbone.errors import UserError

from .plain import PlainViT, plain_vit, refuse_wrapped
from .taps import resolve_taps


def get_vit_features(
    model: nn.Module, input_tensor: torch.Tensor, indices: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return the final-normed patch tokens of some blocks as maps; gradients flow.

    CLS and register tokens are dropped by count (``model.num_prefix_tokens``).

    Args:
        model: a timm ViT (anything with timm's ``forward_intermediates``).
        input_tensor: (B, in_chans, H, W), H and W multiples of the patch size.
        indices: blocks in the order wanted; negative ones count from the end, repeated ones are
            given as often. ``None`` is `layer_indices` of the model's depth.

    Returns:
        One (B, C, H/p, W/p) per index.

    Raises:
        UserError: an index outside the model, no index, no image, images of other channels, a
            model that norms after pooling alone, or what holds a backbone and is none.
        ValueError: H or W is no multiple of the patch size.
    """
    if not hasattr(model, "patch_embed"):  # torch.compile's wrapper shows what is in it
        refuse_wrapped(model)
    vit = plain_vit(model)
    depth = len(vit.blocks)
    wanted = resolve_taps(indices, depth)
    refuse_no_images(input_tensor, vit)
    refuse_unnormed(model)
    refuse_broken_patches(input_tensor, vit.patch_embed.patch_size)
    # timm ignores the order of indices and drops repeated ones, so ask for the sorted set and
    # deal the maps out again.
    blocks = sorted({i % depth for i in wanted})
    maps = vit.forward_intermediates(
        input_tensor, indices=blocks, norm=True, stop_early=True, intermediates_only=True
    )
    map_of = dict(zip(blocks, maps, strict=True))
    return [map_of[i % depth] for i in wanted]


def refuse_no_images(images: torch.Tensor, vit: PlainViT) -> None:
    """Refuse what is no batch of images that a ViT takes.

    Args:
        images: what came for them.
        vit: whose patch embedding says how many channels they have.

    Raises:
        UserError: other dimensions than (batch, channels, height, width), none of them, or images
            of other channels.
    """
    if images.ndim != 4:
        raise UserError(
            f"an image of {images.ndim} dimensions came; (batch, channels, height, width) is "
            "expected"
        )
    if 0 in images.shape:
        shape = tuple(images.shape)
        raise UserError(f"no image or no pixels came, {shape}; at least one image is expected")
    conv: Any = vit.patch_embed.proj
    # A hybrid's convolution sees the map of its stem, and a stranger's embedding may have none.
    if not isinstance(conv, nn.Conv2d) or hasattr(vit.patch_embed, "backbone"):
        return
    if images.shape[1] != conv.in_channels:
        raise UserError(
            f"images of {images.shape[1]} channels came; {conv.in_channels} are expected"
        )


def refuse_unnormed(model: nn.Module) -> None:
    """Refuse a timm ViT that norms what it pools, so that its tokens would come as they are.

    Args:
        model: taken for a backbone.

    Raises:
        UserError: it has a norm behind the pooling and none before it.
    """
    before, behind = getattr(model, "norm", None), getattr(model, "fc_norm", None)
    if isinstance(before, nn.Identity) and not isinstance(behind, (nn.Identity, type(None))):
        raise UserError(
            f"this {type(model).__name__} norms after pooling (fc_norm), and not its tokens; "
            "vit_backbone.create_backbone(its timm name) norms them"
        )


def refuse_broken_patches(image: torch.Tensor, patch_size: tuple[int, int]) -> None:
    """Refuse an image that a patch embedding would crop.

    Args:
        image: (B, channels, H, W).
        patch_size: height and width of a patch in pixels.

    Raises:
        ValueError: H or W is no multiple of it.
    """
    height, width = image.shape[-2:]
    if height % patch_size[0] or width % patch_size[1]:
        raise ValueError(
            f"an image of {height}x{width} is no whole number of {patch_size[0]}x{patch_size[1]} "
            "patches; pad it first (ViTSegmentationModel does)"
        )
