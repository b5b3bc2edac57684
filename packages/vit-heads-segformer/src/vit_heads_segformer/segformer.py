"""The all-MLP head: project every tap, fuse them, classify.

After Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021, written from the paper, with these differences: GroupNorm by default
(the paper's is ``norm="batch"``; nnU-Net trains with batches of 2 or 3); and, since a plain ViT's
taps lie on one grid, a neck that rescales them (ViTDet's simple feature pyramid, Li et al., ECCV
2022, with GroupNorm for LayerNorm) and learned upsampling, both as options.

B: batch, C: embed_dim, h, w: patch grid, D: hidden_size, K: classes.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone import ViTSegmentationModel

from .options import check_options


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class PyramidNeck(nn.Module):
    """Rescale four taps of one grid to 4, 2, 1 and 1/2 times that grid, shallowest the finest.

    An odd grid is continued by its last row or column, so that the coarsest level covers the
    same area as the others; `SegFormerHead` crops it off.

    Args:
        embed_dim: channels C of the taps, and of the levels.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim // 2, kernel_size=2, stride=2),
            _norm("group", embed_dim // 2),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 2, embed_dim, kernel_size=2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Turn four (B, C, h, w) taps into levels; h, w are h, w made even.

        Returns:
            (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h/2, w/2).
        """
        height, width = features[0].shape[-2:]
        odd = (0, width % 2, 0, height % 2)
        f1, f2, f3, f4 = (F.pad(tap, odd, mode="replicate") for tap in features)
        return [self.up4(f1), self.up2(f2), f3, F.max_pool2d(f4, 2)]


class SegFormerHead(nn.Module):
    """All-MLP decoder: per-tap linear, upsample, concatenate, fuse, upsample, classify.

    Args:
        embed_dims: channels of each tap, finest tap first; all the same with a neck.
        num_classes: K.
        hidden_size: D, at least 1.
        dropout: on channels before the classifier, 0 to below 1.
        norm: ``group`` or ``batch``.
        neck: ``none`` or ``pyramid``.
        upsample: ``bilinear`` (of the logits, left to the model) or ``deconv`` (of the fused map,
            to 16 times the patch grid).
        auxiliary_outputs: have an output at the patch grid too, from the deepest tap, which
            ``deep_supervision`` switches on.

    Raises:
        UserError: an impossible option.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        num_classes: int,
        hidden_size: int = 256,
        dropout: float = 0.1,
        *,
        norm: str = "group",
        neck: str = "none",
        upsample: str = "bilinear",
        auxiliary_outputs: bool = False,
    ) -> None:
        super().__init__()
        check_options(hidden_size, dropout, norm, neck, upsample)
        self.deep_supervision = False
        self.deep_supervision_scales = (1.0, 1 / 16) if auxiliary_outputs else (1.0,)
        self.neck = PyramidNeck(embed_dims[0]) if neck == "pyramid" else None
        self.projections = nn.ModuleList(nn.Conv2d(dim, hidden_size, 1) for dim in embed_dims)
        self.fuse = nn.Sequential(
            nn.Conv2d(hidden_size * len(embed_dims), hidden_size, 1, bias=False),
            _norm(norm, hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        fused_scale = 1 if self.neck is None else 4
        # How many times finer than the first tap's grid the logits are.
        self.scale = 16 if upsample == "deconv" else fused_scale
        width, blocks = hidden_size, []
        for _ in range(int(math.log2(self.scale / fused_scale))):
            narrower = max(width // 2, 16)
            blocks += [nn.ConvTranspose2d(width, narrower, 2, 2), _norm(norm, narrower), nn.GELU()]
            width = narrower
        self.upsample = nn.Sequential(*blocks)
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        outputs = (width, hidden_size) if auxiliary_outputs else (width,)
        self.seg_layers = nn.ModuleList(nn.Conv2d(w, num_classes, 1) for w in outputs)

    def forward(
        self, features: Sequence[torch.Tensor], image: torch.Tensor
    ) -> torch.Tensor | list[torch.Tensor]:
        """Turn (B, C, h, w) taps, the finest first, into logits over the same area.

        The image is not looked at.

        Returns:
            (B, K, h, w) of the first tap's grid, (B, K, 4h, 4w) with a neck, (B, K, 16h, 16w) with
            learned upsampling; with deep supervision on, a list with (B, K, h, w) behind it.
        """
        levels = features if self.neck is None else self.neck(features)
        size = levels[0].shape[-2:]
        projected = [
            project(level) for project, level in zip(self.projections, levels, strict=True)
        ]
        resized = [F.interpolate(p, size, mode="bilinear", align_corners=False) for p in projected]
        fused = self.upsample(self.fuse(torch.cat(resized, dim=1)))
        logits = self.seg_layers[0](fused)
        if self.neck is not None:
            # It made an odd grid even. By padding with less than nothing: torch.export fixes the
            # parity of the grid in a slice.
            bottom, right = (side % 2 * self.scale for side in features[0].shape[-2:])
            logits = F.pad(logits, (0, -right, 0, -bottom))
        if not self.deep_supervision:
            return logits
        auxiliary = self.seg_layers[1](self.projections[-1](features[-1]))
        return [logits, auxiliary]


class SegFormerSegmentationModel(ViTSegmentationModel):
    """A ViT with the all-MLP head: images of any size in, logits of the same size out.

    Args:
        backbone: a timm ViT with at least 4 blocks.
        num_classes: K.
        hidden_size: width of the head.
        dropout: before the classifier.
        norm: see `SegFormerHead`, as for the next three.
        neck: see there.
        upsample: see there.
        auxiliary_outputs: see there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        hidden_size: int = 256,
        dropout: float = 0.1,
        *,
        norm: str = "group",
        neck: str = "none",
        upsample: str = "bilinear",
        auxiliary_outputs: bool = False,
    ) -> None:
        head = SegFormerHead(
            [backbone.num_features] * 4,
            num_classes,
            hidden_size,
            dropout,
            norm=norm,
            neck=neck,
            upsample=upsample,
            auxiliary_outputs=auxiliary_outputs,
        )
        super().__init__(backbone, head)
