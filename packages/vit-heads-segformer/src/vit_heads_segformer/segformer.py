"""The all-MLP head: project every tap, fuse them, classify.

After Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021, written from the paper, with these differences: GroupNorm by default
(the paper's is ``norm="batch"``; nnU-Net trains with batches of 2 or 3); and, since a plain ViT's
taps lie on one grid, a neck that rescales them (`PyramidNeck`), learned upsampling, a shortcut and
a look at the image's pixels, all as options.

B: batch, C: embed_dim, h, w: patch grid, D: hidden_size, K: classes.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone import UserError, ViTSegmentationModel, quoted
from vit_backbone.errors import check_count, is_count
from vit_backbone.heads.parts import ImageStem, Shortcut, begin_at_zero, check_taps
from vit_backbone.segmentation.geometry import resized
from vit_backbone.segmentation.precision import without_autocast
from vit_backbone.vits.layers import is_untouched
from vit_backbone.vits.plain import plain_vit

from .options import check_options
from .pyramid import PyramidNeck, make_norm


class SegFormerHead(nn.Module):
    """All-MLP decoder: per-tap linear, upsample, concatenate, fuse, upsample, classify.

    Args:
        embed_dims: channels of each tap, finest tap first; with a neck four, all the same and at
            least 2.
        num_classes: K.
        hidden_size: D, at least 1. With 1, 2, 4 or 8 group norm leaves nothing of a single token,
            which an image of one patch is without a neck.
        dropout: on channels before the classifier, 0 to below 1.
        norm: ``group`` or ``batch``.
        neck: ``none`` or ``pyramid``.
        upsample: ``bilinear`` (of the logits, left to the model) or ``deconv`` (of the fused map,
            to 16 times the patch grid).
        auxiliary_outputs: have an output at the patch grid too, from the deepest tap, which
            ``deep_supervision`` switches on. Their scales are for taps of one grid of 16 px.
        shortcut: add the answer to a linear classifier's of the deepest tap, see `Shortcut`.
        image_stem: correct the answer by the image's pixels, see `ImageStem`.
        image_channels: channels of the image, for ``image_stem``.

    Raises:
        UserError: an impossible option, or taps that a neck cannot take.
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
        shortcut: bool = False,
        image_stem: bool = False,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_options(hidden_size, dropout, norm, neck, upsample)
        check_count("num_classes", num_classes)
        _check_taps_to_come(embed_dims, neck)
        self.deep_supervision = False
        self.deep_supervision_scales = (1.0, 1 / 16) if auxiliary_outputs else (1.0,)
        self.neck = PyramidNeck(embed_dims[0]) if neck == "pyramid" else None
        projections = nn.ModuleList(nn.Conv2d(dim, hidden_size, 1) for dim in embed_dims)
        self.projections = cast("Sequence[nn.Conv2d]", projections)  # it does not say of what
        self.fuse = nn.Sequential(
            nn.Conv2d(hidden_size * len(embed_dims), hidden_size, 1, bias=False),
            make_norm(norm, hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        fused_scale = 1 if self.neck is None else 4
        # How many times finer than the first tap's grid the logits are.
        self.scale = 16 if upsample == "deconv" else fused_scale
        width, blocks = hidden_size, []
        for _ in range(int(math.log2(self.scale / fused_scale))):
            narrower = max(width // 2, 16)
            blocks += [
                nn.ConvTranspose2d(width, narrower, 2, 2),
                make_norm(norm, narrower),
                nn.GELU(),
            ]
            width = narrower
        self.upsample = nn.Sequential(*blocks)
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        outputs = (width, hidden_size) if auxiliary_outputs else (width,)
        self.seg_layers = nn.ModuleList(nn.Conv2d(w, num_classes, 1) for w in outputs)
        self.shortcut: Shortcut | None = None
        self.image_stem: ImageStem | None = None
        if shortcut:
            self.shortcut = Shortcut(embed_dims[-1], num_classes)
            begin_at_zero(self.seg_layers)
        if image_stem:
            self.image_stem = ImageStem(image_channels, width, num_classes)

    def forward(
        self, features: Sequence[torch.Tensor], image: torch.Tensor
    ) -> torch.Tensor | list[torch.Tensor]:
        """Turn (B, C, h, w) taps, the finest first, into logits over the same area.

        The image is looked at by the ``image_stem`` alone.

        Returns:
            (B, K, h, w) of the first tap's grid, (B, K, 4h, 4w) with a neck, (B, K, 16h, 16w) with
            learned upsampling, (B, K, H, W) with ``image_stem``; with deep supervision on, a list
            with (B, K, ...) of the last tap's grid behind it, where the head has it.

        Raises:
            UserError: another number of taps than the head was built for, taps or images of
                several batches, or with a neck taps of several sizes.
        """
        check_taps(features, len(self.projections), one_size=self.neck is not None)
        fused = self.upsample(self._fused(features))
        if self.neck is not None:
            # It made an odd grid even. By padding with less than nothing: torch.export fixes the
            # parity of the grid in a slice.
            bottom, right = (side % 2 * self.scale for side in features[0].shape[-2:])
            fused = F.pad(fused, (0, -right, 0, -bottom))
        outputs = [self.seg_layers[0](fused)]
        if self.deep_supervision and len(self.seg_layers) > 1:
            outputs.append(self.seg_layers[1](self.projections[-1](features[-1])))
        if self.shortcut is not None:
            outputs = self.shortcut(features, outputs)
        if self.image_stem is not None:
            outputs[0] = self.image_stem(image, fused, outputs[0])
        return outputs if self.deep_supervision else outputs[0]

    def _fused(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Project and fuse the taps, or the levels that the neck makes of them."""
        fuse, norm, activation, dropout = self.fuse
        if self.neck is not None and self.neck.mixes and self._mixes():
            return dropout(activation(norm(self.neck.mixed(features, *self._mixers()))))
        levels = features if self.neck is None else self.neck(features)
        size = levels[0].shape[-2:]
        projected = (p(level) for p, level in zip(self.projections, levels, strict=True))
        mixed = fuse(torch.cat([resized(p, size) for p in projected], dim=1))
        return dropout(activation(norm(mixed)))

    def _mixes(self) -> bool:
        """Say whether projection and fusion are matrices, and no adapters or the like."""
        return all(is_untouched(layer, nn.Conv2d) for layer in (self.fuse[0], *self.projections))

    def _mixers(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return projection and fusion as one matrix (D, C) per level, and the bias (D,) of all."""
        fusion = self.fuse[0]
        assert isinstance(fusion, nn.Conv2d)
        with without_autocast(fusion.weight.device.type):
            slices = fusion.weight.flatten(1).chunk(len(self.projections), dim=1)
            pairs = list(zip(slices, self.projections, strict=True))
            mixers = [fuse @ project.weight.flatten(1) for fuse, project in pairs]
            biases = [fuse @ p.bias for fuse, p in pairs if p.bias is not None]  # all have one
            return mixers, sum(biases[1:], start=biases[0])


def _check_taps_to_come(embed_dims: Sequence[int], neck: str) -> None:
    if not isinstance(embed_dims, Sequence) or not all(map(is_count, embed_dims)):
        raise UserError(f"embed_dims {quoted(embed_dims)}: a list of channels is expected, per tap")
    alike = len(embed_dims) == 4 and len(set(embed_dims)) == 1 and embed_dims[0] >= 2
    if neck == "pyramid" and not alike:
        raise UserError(
            f"embed_dims {list(embed_dims)}: a neck makes a pyramid of four taps of the same "
            "channels, 2 or more; taps that are one already need neck='none'"
        )
    if not embed_dims:
        raise UserError("embed_dims []: at least one tap is needed")


class SegFormerSegmentationModel(ViTSegmentationModel):
    """A ViT with the all-MLP head: images of any size in, logits of the same size out.

    Args:
        backbone: a timm ViT with at least 4 blocks.
        num_classes: K.
        hidden_size: width of the head.
        dropout: before the classifier.
        norm: see `SegFormerHead`, as for the next five.
        neck: see there.
        upsample: see there.
        auxiliary_outputs: see there.
        shortcut: see there.
        image_stem: see there.
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
        shortcut: bool = False,
        image_stem: bool = False,
    ) -> None:
        vit = plain_vit(backbone)
        head = SegFormerHead(
            [vit.num_features] * 4,
            num_classes,
            hidden_size,
            dropout,
            norm=norm,
            neck=neck,
            upsample=upsample,
            auxiliary_outputs=auxiliary_outputs,
            shortcut=shortcut,
            image_stem=image_stem,
            image_channels=vit.patch_embed.proj.in_channels,
        )
        super().__init__(backbone, head)
