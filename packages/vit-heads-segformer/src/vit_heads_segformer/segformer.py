"""The all-MLP head: project every tap, fuse them, classify.

After Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021, written from the paper, with these differences: GroupNorm instead of
BatchNorm (nnU-Net trains with batches of 2 or 3), and, since a plain ViT's taps lie on one grid,
logits at the stride of a patch; `ViTSegmentationModel` brings them to the image's size.

B: batch, C: embed_dim, h, w: patch grid, D: hidden_size, K: classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone import ViTSegmentationModel

from .factory import check_options


class SegFormerHead(nn.Module):
    """All-MLP decoder: per-tap linear, upsample, concatenate, fuse, classify.

    Args:
        embed_dims: channels of each tap, finest tap first.
        num_classes: K.
        hidden_size: D, at least 1.
        dropout: on channels before the classifier, 0 to 1.

    Raises:
        UserError: an impossible hidden_size or dropout.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        num_classes: int,
        hidden_size: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_options(hidden_size, dropout)
        self.projections = nn.ModuleList(nn.Conv2d(dim, hidden_size, 1) for dim in embed_dims)
        groups = next(groups for groups in (8, 4, 2, 1) if hidden_size % groups == 0)
        self.fuse = nn.Sequential(
            nn.Conv2d(hidden_size * len(embed_dims), hidden_size, 1, bias=False),
            nn.GroupNorm(groups, hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        self.seg_layers = nn.ModuleList([nn.Conv2d(hidden_size, num_classes, 1)])

    def forward(self, features: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, h, w) taps, the finest first, into logits (B, K, h, w) of the finest grid.

        The image is not looked at.
        """
        size = features[0].shape[-2:]
        projected = [
            F.interpolate(project(tap), size, mode="bilinear", align_corners=False)
            for project, tap in zip(self.projections, features, strict=True)
        ]
        return self.seg_layers[0](self.fuse(torch.cat(projected, dim=1)))


class SegFormerSegmentationModel(ViTSegmentationModel):
    """A ViT with the all-MLP head: images of any size in, logits of the same size out.

    Args:
        backbone: a timm ViT with at least 4 blocks.
        num_classes: K.
        hidden_size: width of the head.
        dropout: before the classifier.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        hidden_size: int = 256,
        dropout: float = 0.1,
    ) -> None:
        head = SegFormerHead([backbone.num_features] * 4, num_classes, hidden_size, dropout)
        super().__init__(backbone, head)
