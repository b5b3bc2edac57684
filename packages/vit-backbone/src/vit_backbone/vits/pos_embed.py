"""How a learned position embedding is resampled to another grid: timm's way, or DINOv2's.

timm resamples with antialiasing, as DINOv2 with registers was trained and evaluated. DINOv2
without registers was trained and evaluated without, and with a scale of (new + 0.1) / old.
"""

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vit_backbone.errors import UserError

from .plain import PatchEmbedding

_OFFSET = 0.1
_SHARPNESS = -0.75  # of the cubic kernel, as in torch's bicubic


class DINOv2VisionTransformer(VisionTransformer):
    """timm's plain ViT with DINOv2's resampling of the position embedding, traceable."""

    pos_embed_resampling = "dinov2"
    patch_embed: PatchEmbedding
    pos_embed: nn.Parameter
    cls_token: nn.Parameter

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        old, (height, width) = self.patch_embed.grid_size, x.shape[1:3]
        position = resample_position_embedding(self.pos_embed, (height, width), old, 1, "dinov2")
        token = self.cls_token.expand(x.shape[0], -1, -1)
        return self.pos_drop(torch.cat([token, x.flatten(1, 2)], dim=1) + position)


def use_resampling(backbone: nn.Module, how: str | None) -> None:
    """Make a backbone resample its position embedding in another way than timm's, in place.

    Args:
        backbone: a timm ViT.
        how: ``None`` and ``timm`` are timm's way, ``dinov2`` that of DINOv2 without registers.

    Raises:
        UserError: another way, or a backbone that is not of DINOv2's kind.
    """
    if how in (None, "timm"):
        return
    if how != "dinov2":
        raise UserError(f"pos_embed_resampling {how!r}: it must be 'dinov2', 'timm' or left out")
    plain = type(backbone) is VisionTransformer and backbone.pos_embed is not None
    if not plain or backbone.num_prefix_tokens != 1 or backbone.no_embed_class:
        raise UserError(
            "pos_embed_resampling 'dinov2' is for a plain ViT with a position embedding and a "
            "class token, without registers"
        )
    backbone.__class__ = DINOv2VisionTransformer


def resample_position_embedding(
    embedding: torch.Tensor,
    grid: tuple[int, int],
    old_grid: tuple[int, int],
    prefix: int,
    how: str | None,
) -> torch.Tensor:
    """Resample a position embedding, at its own grid to itself.

    Args:
        embedding: (1, prefix + h * w, C).
        grid: (H, W) wanted.
        old_grid: (h, w).
        prefix: number of tokens in front of the patches.
        how: see `use_resampling`.

    Returns:
        (1, prefix + H * W, C).
    """
    if how is None:
        return resample_abs_pos_embed(embedding, list(grid), list(old_grid), prefix)
    patches = embedding[:, prefix:].float().unflatten(1, old_grid)  # as timm: not in half
    # Without an offset at the own grid, decided by values: a trace must answer all sizes.
    height, width = (torch.arange(side, device=embedding.device) for side in grid)
    own = (height[-1] + 1 == old_grid[0]) & (width[-1] + 1 == old_grid[1])
    offset = torch.where(own, 0.0, _OFFSET)
    patches = _resample_axis(_resample_axis(patches, height, offset, 1), width, offset, 2)
    return torch.cat([embedding[:, :prefix], patches.flatten(1, 2).to(embedding.dtype)], dim=1)


def _resample_axis(
    patches: torch.Tensor, places: torch.Tensor, offset: torch.Tensor, axis: int
) -> torch.Tensor:
    """Interpolate (1, h, w, C) along an axis by torch's bicubic kernel; borders are repeated."""
    old = patches.shape[axis]
    centre = (places + 0.5) * (old / (places[-1] + 1 + offset)) - 0.5
    first = centre.floor()
    shape = [-1 if i == axis else 1 for i in range(4)]
    resampled = torch.zeros_like(centre).view(shape)
    for tap in (-1, 0, 1, 2):
        weight = _cubic((centre - first - tap).abs()).view(shape)
        index = (first + tap).long().clamp(0, old - 1)
        resampled = resampled + weight * patches.index_select(axis, index)
    return resampled


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Weigh by distance, 0 to 2 (Keys, 1981)."""
    a, d = _SHARPNESS, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return torch.where(d <= 1, near, far)
