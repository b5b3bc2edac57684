"""Fewer products for the same values, where a CPU trains: a convolution behind a doubled map.

B: batch, C: channels of the coarse map, S: of the skip, W: channels out, h, w: height and width.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone.vits.layers import is_untouched


def trains_on_cpu(x: torch.Tensor) -> bool:
    """Whether cuts are made that were found to pay on CPUs, for gradients of float32 or wider.

    Not where others record what is computed, to run it at other sizes: the sizes decide. Nor for
    fake tensors, by which the planner counts a GPU's memory. Nor under autocast, which would round
    what is computed between.

    Args:
        x: what comes in.
    """
    return (
        type(x) is torch.Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def is_conv_3x3(layer: nn.Module) -> bool:
    """Whether a layer is a 3x3 convolution that pads by zeros, and nothing else."""
    if not is_untouched(layer, nn.Conv2d):
        return False
    assert isinstance(layer, nn.Conv2d)
    steps = (layer.stride, layer.padding, layer.dilation)
    return (
        layer.kernel_size == (3, 3)
        and steps == ((1, 1), (1, 1), (1, 1))
        and (layer.groups, layer.padding_mode) == (1, "zeros")
    )


def doubles(layer: nn.Module) -> bool:
    """Whether a layer doubles a map bilinearly, as `torch.nn.Upsample` does by default."""
    if not is_untouched(layer, nn.Upsample):
        return False
    assert isinstance(layer, nn.Upsample)
    bilinear = layer.mode == "bilinear" and not layer.align_corners
    return bilinear and layer.size is None and layer.scale_factor == 2


def mixes(upsample: nn.Module, conv: nn.Module, coarse: torch.Tensor) -> bool:
    """Whether `conv_of_doubled` pays: on a CPU, behind maps that are no longer than C.

    It takes 9 C + 18 h + 12 w products per value of W h w, instead of 36 C. Where a layer was
    replaced, by an adapter, a parametrized layer or one of other settings, or has a hook, it is
    called.

    Args:
        upsample: doubles the size.
        conv: follows it.
        coarse: (B, C, h, w).
    """
    return (
        trains_on_cpu(coarse)
        and doubles(upsample)
        and is_conv_3x3(conv)
        and max(coarse.shape[-2:]) <= coarse.shape[1]
    )


def conv_of_doubled(
    coarse: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the 3x3 convolution, padded by zeros, of the doubled coarse map beside the skip.

    Doubling, as `torch.nn.Upsample` does it bilinearly, leaves channels apart, so they are mixed
    before it, for each of the nine offsets of the kernel. Then rows are doubled, moved by their
    offset and added up, by one product with a matrix; and columns likewise.

    Args:
        coarse: (B, C, h, w).
        skip: (B, S, 2h, 2w).
        weight: (W, C + S, 3, 3).
        bias: (W,), or ``None``.

    Returns:
        (B, W, 2h, 2w).
    """
    _, channels, height, width = coarse.shape
    sums = F.conv2d(skip, weight[:, channels:], bias, padding=1)
    mixers = weight[:, :channels].permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    mixed = F.conv2d(coarse, mixers).reshape(-1, 3, 3, height, width)
    by_rows = mixed.transpose(2, 3).reshape(-1, 3 * height, 3 * width)
    rows = (_doubling(height, coarse) @ by_rows).reshape(-1, 3 * width)
    columns = _doubling(width, coarse).T
    return torch.addmm(sums.reshape(-1, 2 * width), rows, columns).reshape(sums.shape)


def _doubling(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return (2 length, 3 length): maps for the offsets -1, 0 and 1 -> doubled, moved, added up."""
    ones = torch.eye(length, dtype=like.dtype)[None]
    doubled = F.interpolate(ones, scale_factor=2, mode="linear", align_corners=False)[0].T
    beyond = doubled.new_zeros(1, length)
    before, behind = torch.cat([beyond, doubled[:-1]]), torch.cat([doubled[1:], beyond])
    return torch.cat([before, doubled, behind], dim=1)
