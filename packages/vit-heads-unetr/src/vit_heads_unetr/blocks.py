"""The blocks of the UNETR head: doubling the size, and twice a convolution.

B: batch, C: channels in, W: channels out, h, w: height and width in.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone.heads.parts import group_norm
from vit_backbone.segmentation.precision import without_autocast
from vit_backbone.vits.layers import is_untouched

from .cheaper import is_conv_3x3, trains_on_cpu


def make_norm(kind: str, channels: int) -> nn.Module:
    """Make a norm layer.

    Args:
        kind: ``group`` (the largest of 8, 4, 2, 1 groups that divides the channels), ``instance``,
            or ``layer`` (one group: over channels, height and width).
        channels: of the map.
    """
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(1, channels) if kind == "layer" else group_norm(channels)


class DeconvBlock(nn.Sequential):
    """Double the size: ConvTranspose2d x2, Conv 3x3 without bias, norm, LeakyReLU.

    The two convolutions are one transposed convolution of 4x4, and are computed so where that is
    less work and pays (`folds`).

    Args:
        in_channels: channels in.
        out_channels: channels out, of both convolutions.
        negative_slope: of the LeakyReLU.
        norm: see `make_norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        negative_slope: float = 0.01,
        norm: str = "group",
    ) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            make_norm(norm, out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
        )

    def folds(self, input: torch.Tensor) -> bool:
        """Whether both convolutions are computed as one.

        It takes 4 instead of 1 + 9 W / C products per pixel and channel; composing the kernels
        takes 36 C W^2 more. Narrow blocks earn that back; wide ones where a CPU trains them on maps
        that save five times as much (benchmarks/cost_cuts.py). Where one was replaced, by an
        adapter, a parametrized layer or one of other settings, or has a hook, both are called.

        Args:
            input: (B, C, h, w).
        """
        double, conv, *_ = self
        if not (_is_deconv_2x2(double) and is_conv_3x3(conv)):
            return False
        assert isinstance(double, nn.ConvTranspose2d)
        channels, width = double.in_channels, double.out_channels
        if width <= 64:
            return channels < 3 * width
        pixels = 4 * input.shape[0] * input.shape[-2] * input.shape[-1]
        saved = 3 * pixels * width * (3 * width - channels)
        return trains_on_cpu(input) and saved >= 5 * 36 * channels * width**2

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, h, w) into (B, W, 2h, 2w)."""
        double, conv, norm, activation = self
        if not self.folds(input):
            return activation(norm(conv(double(input))))
        assert isinstance(double, nn.ConvTranspose2d)
        assert double.bias is not None
        assert isinstance(conv, nn.Conv2d)
        # A channel of ones carries the first bias, which the second convolution's padding borders.
        x = F.pad(input, (0, 0, 0, 0, 0, 1), value=1.0)
        with without_autocast(x.device.type):  # composed as they are kept
            bias = double.bias[None, :, None, None].expand(1, -1, 2, 2)
            kernels = F.conv2d(torch.cat([double.weight, bias]), conv.weight, padding=2)
        return activation(norm(F.conv_transpose2d(x, kernels, conv.bias, stride=2, padding=1)))


def _is_deconv_2x2(layer: nn.Module) -> bool:
    if not is_untouched(layer, nn.ConvTranspose2d):
        return False
    assert isinstance(layer, nn.ConvTranspose2d)
    steps = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation)
    return (
        steps == ((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
        and layer.groups == 1
        and layer.bias is not None
    )


class ConvBlock(nn.Sequential):
    """Twice Conv 3x3 without bias, norm, LeakyReLU; the size stays.

    Args:
        in_channels: channels in.
        out_channels: channels out, of both convolutions.
        negative_slope: of the LeakyReLUs.
        norm: see `make_norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        negative_slope: float = 0.01,
        norm: str = "group",
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            make_norm(norm, out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            make_norm(norm, out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
        )


def add_conv_biases(head: nn.Module) -> None:
    """Give the 3x3 convolutions the biases before the norms that heads of 0.1.0 have, in place.

    A norm over several channels takes only their mean away, so what was trained with them needs
    them. They begin at zero.
    """
    for block in head.modules():
        if isinstance(block, DeconvBlock | ConvBlock):
            for layer in block:
                if isinstance(layer, nn.Conv2d):
                    layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
