"""The UNETR head: four deconvolution paths from the taps and a decoder that merges them.

After Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022, with
these differences: two dimensions; the first skip comes from the shallowest tap, not from the
image; the decoder upsamples bilinearly; GroupNorm and LeakyReLU (nnU-Net trains with small
batches, where the paper's BatchNorm is noisy).

B: batch, C: embed_dim, h, w: patch grid, K: classes. Widths c0 ... c4 are ``decoder_channels``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from vit_backbone import ViTSegmentationModel
from vit_backbone.errors import check_count
from vit_backbone.heads.parts import ImageStem, Shortcut, begin_at_zero, check_taps
from vit_backbone.heads.recompute import Run, kept, recomputed
from vit_backbone.vits.plain import plain_vit

from .blocks import DeconvBlock, add_conv_biases
from .decoder import UNETRDecoder
from .options import DEFAULT_CHANNELS, check_options


class UNETREncoder(nn.Module):
    """Bring four taps to 16, 8, 4 and 2 times the patch grid.

    With 16 px patches that is the full, 1/2, 1/4 and 1/8 of the padded image's size.

    Args:
        embed_dim: channels C of the taps.
        decoder_channels: the widths (c0, ..., c4); c4 is not used here.
        negative_slope: of the LeakyReLUs.
        norm: see `make_norm`.
    """

    def __init__(
        self,
        embed_dim: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
        norm: str = "group",
    ) -> None:
        super().__init__()
        c0, c1, c2, c3, _ = decoder_channels

        def path(width: int, blocks: int) -> nn.Sequential:
            ins = [embed_dim] + [width] * (blocks - 1)
            return nn.Sequential(*(DeconvBlock(i, width, negative_slope, norm) for i in ins))

        self.z1 = path(c3, blocks=4)
        self.z2 = path(c2, blocks=3)
        self.z3 = path(c1, blocks=2)
        self.z4 = path(c0, blocks=1)

    def forward(self, features: Sequence[torch.Tensor], run: Run = kept) -> list[torch.Tensor]:
        """Upsample four (B, C, h, w) taps, shallowest first.

        Args:
            features: the taps.
            run: how blocks are run, see `recomputed`.

        Returns:
            (B, c3, 16h, 16w), (B, c2, 8h, 8w), (B, c1, 4h, 4w), (B, c0, 2h, 2w).
        """
        maps = []
        for path, x in zip((self.z1, self.z2, self.z3, self.z4), features, strict=True):
            for block in path:
                x = run(block, x)
            maps.append(x)
        return maps


class UNETRHead(nn.Module):
    """Encoder and decoder as one head: four taps in, logits at 16 times the patch grid out.

    With ``recompute`` it keeps less for the backward pass, see `recomputed`.

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
        decoder_channels: the five widths (c0, ..., c4), each at least 1.
        negative_slope: of the LeakyReLUs.
        image_skip: let the decoder see the image at full resolution, as the paper's z0.
        upsample: ``bilinear`` or ``deconv``.
        norm: ``group``, ``instance`` or ``layer``.
        image_channels: channels of the image, for ``image_skip`` and ``image_stem``.
        auxiliary_outputs: have outputs at 1/2, 1/4 and 1/8 of the size too, which
            ``deep_supervision`` switches on.
        conv_bias: see `add_conv_biases`.
        shortcut: add every output to a linear classifier's of the last tap, see `Shortcut`.
        image_stem: correct the output by the image's pixels, see `ImageStem`.

    Raises:
        UserError: an impossible option.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
        *,
        image_skip: bool = False,
        upsample: str = "bilinear",
        norm: str = "group",
        image_channels: int = 3,
        auxiliary_outputs: bool = False,
        conv_bias: bool = False,
        shortcut: bool = False,
        image_stem: bool = False,
    ) -> None:
        super().__init__()
        check_options(decoder_channels, negative_slope, image_skip, upsample, norm)
        check_count("embed_dim", embed_dim)
        check_count("num_classes", num_classes)
        self.deep_supervision = False
        self.recompute = False
        self.deep_supervision_scales = (1.0, 0.5, 0.25, 0.125) if auxiliary_outputs else (1.0,)
        self.encoder = UNETREncoder(embed_dim, decoder_channels, negative_slope, norm)
        self.decoder = UNETRDecoder(
            num_classes,
            decoder_channels,
            negative_slope,
            image_channels if image_skip else 0,
            upsample,
            norm,
            auxiliary_outputs,
        )
        if conv_bias:
            add_conv_biases(self)
        self.shortcut: Shortcut | None = None
        self.image_stem: ImageStem | None = None
        if shortcut:
            self.shortcut = Shortcut(embed_dim, num_classes)
            begin_at_zero(self.decoder.seg_layers)
        if image_stem:
            self.image_stem = ImageStem(image_channels, decoder_channels[4], num_classes)

    def forward(
        self, features: Sequence[torch.Tensor], image: torch.Tensor
    ) -> torch.Tensor | list[torch.Tensor]:
        """Turn four (B, C, h, w) taps and the padded image (B, channels, H, W) into logits.

        Returns:
            (B, K, 16h, 16w), or with ``image_stem`` (B, K, H, W); with deep supervision on, a list
            with the coarser outputs behind them, where the head has them.

        Raises:
            UserError: another number of taps than four, taps of several sizes, taps or images of
                several batches, or no image where the head looks at it.
        """
        check_taps(features, 4, one_size=True)
        run = recomputed if self.recompute else kept
        maps = self.encoder(features, run)
        outputs, finest = self.decoder(maps, image, self.deep_supervision, run)
        if self.shortcut is not None:
            outputs = self.shortcut(features, outputs)
        if self.image_stem is not None:
            outputs[0] = self.image_stem(image, finest, outputs[0])
        return outputs if self.deep_supervision else outputs[0]


class UNETRSegmentationModel(ViTSegmentationModel):
    """A ViT with the UNETR head: images of any size in, logits of the same size out.

    Args:
        backbone: a timm ViT with at least 4 blocks.
        num_classes: K.
        decoder_channels: the five widths (c0, ..., c4).
        negative_slope: of the LeakyReLUs.
        image_skip: see `UNETRHead`, as for the next ones.
        upsample: see there.
        norm: see there.
        auxiliary_outputs: see there.
        conv_bias: see there.
        shortcut: see there.
        image_stem: see there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
        negative_slope: float = 0.01,
        *,
        image_skip: bool = False,
        upsample: str = "bilinear",
        norm: str = "group",
        auxiliary_outputs: bool = False,
        conv_bias: bool = False,
        shortcut: bool = False,
        image_stem: bool = False,
    ) -> None:
        vit = plain_vit(backbone)
        head = UNETRHead(
            vit.num_features,
            num_classes,
            decoder_channels,
            negative_slope,
            image_skip=image_skip,
            upsample=upsample,
            norm=norm,
            image_channels=vit.patch_embed.proj.in_channels,
            auxiliary_outputs=auxiliary_outputs,
            conv_bias=conv_bias,
            shortcut=shortcut,
            image_stem=image_stem,
        )
        super().__init__(backbone, head)
