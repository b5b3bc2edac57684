"""The UNETR head: four deconvolution paths from the taps and a decoder that merges them.

After Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022, with
these differences: two dimensions; the first skip comes from the shallowest tap, not from the
image; the decoder upsamples bilinearly; GroupNorm and LeakyReLU (nnU-Net trains with small
batches, where the paper's BatchNorm is noisy).

B: batch, C: embed_dim, h, w: patch grid, K: classes. Widths c0 ... c4 are ``decoder_channels``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone import ViTSegmentationModel

from .factory import DEFAULT_CHANNELS, check_options


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


class DeconvBlock(nn.Sequential):
    """Double the size: ConvTranspose2d x2, Conv 3x3, GroupNorm, LeakyReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out, of both convolutions.
        negative_slope: of the LeakyReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, negative_slope: float = 0.01) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            _group_norm(out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
        )


class ConvBlock(nn.Sequential):
    """Twice Conv 3x3, GroupNorm, LeakyReLU; the size stays.

    Args:
        in_channels: channels in.
        out_channels: channels out, of both convolutions.
        negative_slope: of the LeakyReLUs.
    """

    def __init__(self, in_channels: int, out_channels: int, negative_slope: float = 0.01) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            _group_norm(out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            _group_norm(out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
        )


class UNETREncoder(nn.Module):
    """Bring four taps to 16, 8, 4 and 2 times the patch grid.

    With 16 px patches that is the full, 1/2, 1/4 and 1/8 of the padded image's size.

    Args:
        embed_dim: channels C of the taps.
        decoder_channels: the widths (c0, ..., c4); c4 is not used here.
        negative_slope: of the LeakyReLUs.
    """

    def __init__(
        self,
        embed_dim: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        c0, c1, c2, c3, _ = decoder_channels

        def path(width: int, blocks: int) -> nn.Sequential:
            ins = [embed_dim] + [width] * (blocks - 1)
            return nn.Sequential(*(DeconvBlock(i, width, negative_slope) for i in ins))

        self.z1 = path(c3, blocks=4)
        self.z2 = path(c2, blocks=3)
        self.z3 = path(c1, blocks=2)
        self.z4 = path(c0, blocks=1)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Upsample four (B, C, h, w) taps, shallowest first.

        Returns:
            (B, c3, 16h, 16w), (B, c2, 8h, 8w), (B, c1, 4h, 4w), (B, c0, 2h, 2w).
        """
        paths = (self.z1, self.z2, self.z3, self.z4)
        return [path(tap) for path, tap in zip(paths, features, strict=True)]


class UNETRDecoder(nn.Module):
    """Merge the four maps from coarse to fine and classify.

    Args:
        num_classes: K.
        decoder_channels: the widths (c0, ..., c4).
        negative_slope: of the LeakyReLUs.
    """

    def __init__(
        self,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        widths = tuple(decoder_channels)
        self.merges = nn.ModuleList(
            ConvBlock(coarse + skip, skip, negative_slope) for coarse, skip in pairwise(widths[:4])
        )
        self.last = ConvBlock(widths[3], widths[4], negative_slope)
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        self.seg_layers = nn.ModuleList([nn.Conv2d(widths[4], num_classes, kernel_size=1)])

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decode the encoder's maps, finest first, into logits (B, K, 16h, 16w)."""
        z1, z2, z3, x = maps
        for merge, skip in zip(self.merges, (z3, z2, z1), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = merge(torch.cat([x, skip], dim=1))
        return self.seg_layers[0](self.last(x))


class UNETRHead(nn.Module):
    """Encoder and decoder as one head: four taps in, logits at 16 times the patch grid out.

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
        decoder_channels: the five widths (c0, ..., c4), each at least 1.
        negative_slope: of the LeakyReLUs.

    Raises:
        UserError: not five widths, or one below 1.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        check_options(decoder_channels, negative_slope)
        self.encoder = UNETREncoder(embed_dim, decoder_channels, negative_slope)
        self.decoder = UNETRDecoder(num_classes, decoder_channels, negative_slope)

    def forward(self, features: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn four (B, C, h, w) taps into logits (B, K, 16h, 16w); the image is not looked at."""
        return self.decoder(self.encoder(features))


class UNETRSegmentationModel(ViTSegmentationModel):
    """A ViT with the UNETR head: images of any size in, logits of the same size out.

    Args:
        backbone: a timm ViT with at least 4 blocks.
        num_classes: K.
        decoder_channels: the five widths (c0, ..., c4).
        negative_slope: of the LeakyReLUs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
    ) -> None:
        head = UNETRHead(backbone.num_features, num_classes, decoder_channels, negative_slope)
        super().__init__(backbone, head)
