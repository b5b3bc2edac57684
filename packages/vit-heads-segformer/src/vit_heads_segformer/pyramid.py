"""The neck that makes a pyramid of four taps of one grid, and the same with the head folded in.

After the simple feature pyramid of Li et al., ViTDet, ECCV 2022, with GroupNorm for LayerNorm.

B: batch, C: embed_dim, h, w: patch grid, D: hidden_size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone.heads.parts import group_norm
from vit_backbone.segmentation.geometry import resized
from vit_backbone.segmentation.precision import without_autocast
from vit_backbone.vits.layers import is_untouched


def make_norm(kind: str, channels: int) -> nn.Module:
    """Make a norm layer.

    Args:
        kind: ``batch``, or ``group`` (the largest of 8, 4, 2, 1 groups that divides the channels).
        channels: of the map.
    """
    return nn.BatchNorm2d(channels) if kind == "batch" else group_norm(channels)


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
            group_norm(embed_dim // 2),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 2, embed_dim, kernel_size=2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Turn four (B, C, h, w) taps into levels; h, w are h, w made even.

        Returns:
            (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h/2, w/2).
        """
        f1, f2, f3, f4 = _made_even(features)
        return [self.up4(f1), self.up2(f2), f3, F.max_pool2d(f4, 2)]

    @property
    def mixes(self) -> bool:
        """Whether channels can be mixed first: its last layers are those that it was built with."""
        return all(is_untouched(layer, nn.ConvTranspose2d) for layer in (self.up4[-1], self.up2))

    def mixed(
        self, features: Sequence[torch.Tensor], mixers: Sequence[torch.Tensor], bias: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum over the levels of each one's mixed channels, at the finest one's size.

        What `forward` gives, each level multiplied by its mixer, resampled and added up. Between a
        level's last transposed convolution and the sum everything is linear, so channels are mixed
        first, inside of that convolution, and only D of them are resampled: a fifth of the
        operations (4.28 to 0.82 GFLOP for ViT-S at 256 px). Where a layer was replaced, by an
        adapter or the like, or has a hook, take `forward` (`mixes`).

        Args:
            features: four (B, C, h, w) taps.
            mixers: four (D, C) matrices.
            bias: (D,), added to the sum.

        Returns:
            (B, D, 4h, 4w), of h, w made even.
        """
        f1, f2, f3, f4 = _made_even(features)
        narrow, norm, activation, last = self.up4
        assert isinstance(last, nn.ConvTranspose2d)
        finest = _upsampled(activation(norm(narrow(f1))), last, mixers[0], bias)
        coarser = (
            _upsampled(f2, self.up2, mixers[1]),
            F.conv2d(f3, mixers[2][..., None, None]),
            F.conv2d(F.max_pool2d(f4, 2), mixers[3][..., None, None]),
        )
        for level in coarser:
            finest = finest + resized(level, finest.shape[-2:])
        return finest


def _made_even(features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Repeat the last column and row where their number is odd.

    Not by replicated padding: of its gradient inductor expects another layout than a CPU gives
    (torch 2.15). What is added is nothing where the number is even, so that sizes need no branch.
    """
    height, width = features[0].shape[-2:]
    right, bottom = width % 2, height % 2
    for_columns, for_rows = (width - 1 + right, 0), (0, 0, height - 1 + bottom, 0)
    wide = [F.pad(f, (0, right)) + F.pad(f[..., -1:] * right, for_columns) for f in features]
    return [F.pad(f, (0, 0, 0, bottom)) + F.pad(f[..., -1:, :] * bottom, for_rows) for f in wide]


def _upsampled(
    x: torch.Tensor,
    upsample: nn.ConvTranspose2d,
    mixer: torch.Tensor,
    bias: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Apply a transposed convolution (in, C) whose C channels go through a mixer (D, C)."""
    assert upsample.bias is not None
    with without_autocast(x.device.type):  # weights are composed as they are kept
        weight = torch.einsum("icyx,dc->idyx", upsample.weight, mixer)
        bias = mixer @ upsample.bias + bias
    return F.conv_transpose2d(x, weight, bias, stride=2)
