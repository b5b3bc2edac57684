"""The decoder of the UNETR head: it merges four maps from coarse to fine and classifies.

B: batch, h, w: patch grid, K: classes. Widths c0 ... c4 are ``decoder_channels``.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone.heads.parts import check_image
from vit_backbone.heads.recompute import Run, kept
from vit_backbone.vits.layers import is_untouched

from .blocks import ConvBlock
from .cheaper import conv_of_doubled, mixes
from .options import DEFAULT_CHANNELS


class UNETRDecoder(nn.Module):
    """Merge the four maps from coarse to fine and classify.

    Args:
        num_classes: K.
        decoder_channels: the widths (c0, ..., c4).
        negative_slope: of the LeakyReLUs.
        image_channels: channels of the image where it is a skip too; 0 without that skip.
        upsample: ``bilinear``, or ``deconv`` for a learned ConvTranspose2d before each merge.
        norm: see `make_norm`.
        auxiliary_outputs: classify the coarser maps too, for deep supervision.
    """

    def __init__(
        self,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
        image_channels: int = 0,
        upsample: str = "bilinear",
        norm: str = "group",
        auxiliary_outputs: bool = False,
    ) -> None:
        super().__init__()
        widths = tuple(decoder_channels)
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
            if upsample == "deconv"
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            for width in widths[:3]
        )
        self.merges = nn.ModuleList(
            ConvBlock(coarse + skip, skip, negative_slope, norm)
            for coarse, skip in pairwise(widths[:4])
        )
        last = widths[3]
        self.z0: ConvBlock | None = None
        if image_channels:
            self.z0 = ConvBlock(image_channels, widths[4], negative_slope, norm)
            last += widths[4]
        self.last = ConvBlock(last, widths[4], negative_slope, norm)
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        classified = (widths[4], widths[2], widths[1], widths[0])
        self.seg_layers = nn.ModuleList(
            nn.Conv2d(width, num_classes, kernel_size=1)
            for width in classified[: 4 if auxiliary_outputs else 1]
        )

    def forward(
        self,
        maps: Sequence[torch.Tensor],
        image: torch.Tensor,
        deep_supervision: bool = False,
        run: Run = kept,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Decode the encoder's maps, finest first.

        The image is looked at only where it is a skip.

        Args:
            maps: the encoder's.
            image: padded.
            deep_supervision: give the auxiliary outputs too.
            run: how blocks are run, see `recomputed`.

        Returns:
            Logits (B, K, 16h, 16w), behind which with ``deep_supervision`` the auxiliary outputs
            at 8, 4 and 2 times the patch grid follow; and the map (B, c4, 16h, 16w) of the former.
        """
        z1, z2, z3, x = maps
        coarser = [x]
        for upsample, merge, skip in zip(self.upsamplers, self.merges, (z3, z2, z1), strict=True):
            mix = run is kept and _mixes(upsample, merge, x)
            x = run(partial(_merged, upsample, merge, mix), x, skip)
            coarser.insert(0, x)
        if self.z0 is not None:
            check_image(image, x)
            # A patch-14 grid decodes to 16/14 of the image: the skip must lie where it lies.
            fitted = F.interpolate(image, x.shape[-2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, run(self.z0, fitted)], dim=1)
        x = run(self.last, x)
        # The first of the coarser maps is the finest merge, which the last block has refined.
        classified = [x, *coarser[1:]] if deep_supervision else [x]
        return [self.seg_layers[number](m) for number, m in enumerate(classified)], x


def _mixes(upsample: nn.Module, merge: nn.Module, coarse: torch.Tensor) -> bool:
    if not isinstance(merge, ConvBlock) or not is_untouched(merge, ConvBlock):
        return False
    return mixes(upsample, merge[0], coarse)


def _merged(
    upsample: nn.Module, merge: nn.Module, mix: bool, coarse: torch.Tensor, skip: torch.Tensor
) -> torch.Tensor:
    if not mix:
        return merge(torch.cat([upsample(coarse), skip], dim=1))
    assert isinstance(merge, ConvBlock)
    conv, *others = merge
    assert isinstance(conv, nn.Conv2d)
    x = conv_of_doubled(coarse, skip, conv.weight, conv.bias)
    for layer in others:
        x = layer(x)
    return x
