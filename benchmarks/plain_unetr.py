"""The UNETR of the specification put together plainly, for ours to be measured against.

Every layer after the other, in torch's own layout: nothing is folded, split or computed anew. Its
parameters have the names and the order of `vit_heads_unetr.UNETRHead`'s, so that each fills the
other and both must answer alike.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vit_heads_unetr.options import DEFAULT_CHANNELS


class PlainUNETRHead(nn.Module):
    """Four deconvolution paths and three merges: (B, C, h, w) taps in, (B, K, 16h, 16w) out.

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
        widths: the five widths (c0, ..., c4).
    """

    def __init__(
        self, embed_dim: int, num_classes: int, widths: Sequence[int] = DEFAULT_CHANNELS
    ) -> None:
        super().__init__()
        c0, c1, c2, c3, c4 = widths
        paths = {"z1": (c3, 4), "z2": (c2, 3), "z3": (c1, 2), "z4": (c0, 1)}
        self.encoder = nn.ModuleDict(
            {name: _path(embed_dim, width, depth) for name, (width, depth) in paths.items()}
        )
        self.decoder = nn.ModuleDict(
            {
                "merges": nn.ModuleList(
                    _conv_block(a + b, b) for a, b in ((c0, c1), (c1, c2), (c2, c3))
                ),
                "last": _conv_block(c3, c4),
                "seg_layers": nn.ModuleList([nn.Conv2d(c4, num_classes, kernel_size=1)]),
            }
        )

    def forward(self, features: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn taps, shallowest first, into logits; the image is not looked at."""
        z1, z2, z3, x = (
            path(tap) for path, tap in zip(self.encoder.values(), features, strict=True)
        )
        for merge, skip in zip(self.decoder["merges"], (z3, z2, z1), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = merge(torch.cat([x, skip], dim=1))
        return self.decoder["seg_layers"][0](self.decoder["last"](x))


def _path(embed_dim: int, width: int, depth: int) -> nn.Sequential:
    ins = [embed_dim] + [width] * (depth - 1)
    return nn.Sequential(*(_deconv_block(i, width) for i in ins))


def _deconv_block(channels: int, width: int) -> nn.Sequential:
    double = nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)
    return nn.Sequential(double, *_conv(width, width))


def _conv_block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(*_conv(channels, width), *_conv(width, width))


def _conv(channels: int, width: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return (
        nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
        nn.GroupNorm(math.gcd(8, width), width),
        nn.LeakyReLU(0.01, inplace=True),
    )
