"""The options of the UNETR head: their values, and what is refused. No torch here."""

import math
from collections.abc import Sequence

from vit_backbone.errors import UserError, is_count, is_number, quoted

DEFAULT_CHANNELS = (512, 256, 128, 64, 32)
# 6 GFLOP at 256 px on top of a ViT-S or -L, where the default costs 88.
LIGHT_CHANNELS = (128, 64, 32, 16, 16)
# From each output of deep supervision to the next: full size, 1/2, 1/4, 1/8.
DEEP_SUPERVISION_STRIDES = (1, 2, 2, 2)
UPSAMPLES = ("bilinear", "deconv")
NORMS = ("group", "instance", "layer")
OPTIONS_OF_OLD_PLANS = {"conv_bias": True}


def check_options(
    decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
    negative_slope: float = 0.01,
    image_skip: bool = False,
    upsample: str = "bilinear",
    norm: str = "group",
    conv_bias: bool = False,
    shortcut: bool = False,
    image_stem: bool = False,
) -> None:
    """Refuse values that no UNETR head can be built with.

    Raises:
        UserError: not five positive widths, a negative slope below 0, or a name not listed.
    """
    widths = decoder_channels
    if not isinstance(widths, Sequence) or len(widths) != 5 or not all(map(is_count, widths)):
        raise UserError(
            f"decoder_channels {quoted(widths)}: five positive widths, whole numbers, "
            f"are needed, coarse to fine, such as {list(DEFAULT_CHANNELS)}"
        )
    if not is_number(negative_slope) or not 0 <= negative_slope < math.inf:
        raise UserError(f"negative_slope {negative_slope!r}: it must be at least 0")
    for name, value, known in (("upsample", upsample, UPSAMPLES), ("norm", norm, NORMS)):
        if value not in known:
            raise UserError(f"{name} {value!r}: there is {', '.join(known)}")
