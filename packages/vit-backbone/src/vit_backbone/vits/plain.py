"""The type of a backbone.

timm's plain ViTs (VisionTransformer, Eva and what is derived from them) have no class in common
that says so, and `torch.nn.Module` says of any attribute that it may be a tensor or a module.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vit_backbone.errors import UserError


class PatchEmbedding(nn.Module):
    """What is asked of timm's patch embedding."""

    patch_size: tuple[int, int]
    grid_size: tuple[int, int]
    proj: nn.Conv2d


class PlainViT(nn.Module):
    """What is asked of a timm ViT, and what `create_backbone` writes to it.

    For type checkers: backbones are of timm's classes, none is an instance of this one.

    Attributes:
        patch_embed: one convolution of the image.
        blocks: the transformer's.
        norm: of the tokens behind the last block.
        fc_norm: of what timm pools; nothing here.
        num_features: channels of the features.
        num_prefix_tokens: class and register tokens, in front of the patches.
        pretrained_cfg: what timm records of its weights.
        trained_patch_size: side of a patch in the weights, in pixels.
        trained_chans: channels that the weights are for.
        train_patch_embedding: see `create_backbone`.
    """

    patch_embed: PatchEmbedding
    blocks: nn.Sequential
    norm: nn.Module
    fc_norm: nn.Module
    num_features: int
    num_prefix_tokens: int
    pretrained_cfg: dict[str, Any]
    trained_patch_size: int
    trained_chans: int
    train_patch_embedding: bool | None

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        intermediates_only: bool = False,
    ) -> list[torch.Tensor]:
        """Return the tokens of some blocks as maps, as timm does with ``intermediates_only``."""
        raise NotImplementedError

    def set_input_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Resize the position embedding's grid and the patch embedding."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks anew for the backward pass, or keep them."""
        raise NotImplementedError


def refuse_wrapped(module: nn.Module) -> None:
    """Refuse what holds a backbone and is none: its tensors have other names.

    Args:
        module: taken for a backbone.

    Raises:
        UserError: it has no patch embedding of its own.
    """
    if "patch_embed" not in dict(module.named_children()):
        raise UserError(
            f"a {type(module).__name__} is no backbone; give the one in it (a segmentation model: "
            ".backbone, torch.compile: ._orig_mod, DistributedDataParallel: .module)"
        )


def plain_vit(module: nn.Module) -> PlainViT:
    """Take a module for a plain ViT, as which it was built; nothing is looked at."""
    return module  # ty: ignore[invalid-explicit-return] - no cast: what is compiled calls it
