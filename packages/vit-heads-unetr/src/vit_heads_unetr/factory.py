"""The factory of the UNETR model; no torch until it is called.

Its explicit parameters are the schema of ``model.decoder`` in a trainer's config.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from vit_backbone import head_factory

from .options import DEEP_SUPERVISION_STRIDES, DEFAULT_CHANNELS, OPTIONS_OF_OLD_PLANS, check_options

if TYPE_CHECKING:
    from torch import nn

    from .unetr import UNETRSegmentationModel

# `head_factory`, and whoever asks a head what it can do, look for them beside the factory.
__all__ = [
    "DEEP_SUPERVISION_STRIDES",
    "OPTIONS_OF_OLD_PLANS",
    "check_options",
    "create_segmentation_model",
]


@head_factory
def create_segmentation_model(
    backbone: "nn.Module",
    num_classes: int,
    *,
    decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
    negative_slope: float = 0.01,
    image_skip: bool = False,
    upsample: Literal["bilinear", "deconv"] = "bilinear",
    norm: Literal["group", "instance", "layer"] = "group",
    conv_bias: bool = False,
    auxiliary_outputs: bool = False,
    shortcut: bool = False,
    image_stem: bool = False,
) -> "UNETRSegmentationModel":
    """Build a ViT with the UNETR head: (B, in_channels, H, W) in, logits of that size out.

    The arguments of every head are `vit_backbone.heads.factory.standard_factory`'s; unknown options
    are warned about and ignored.

    Args:
        backbone: what they build.
        num_classes: number of output channels, at least 1.
        decoder_channels: the five widths of the head, from coarse to fine.
        negative_slope: of the head's LeakyReLUs, at least 0.
        image_skip: let the decoder see the image at full resolution, as the paper does.
        upsample: how the decoder doubles the size.
        norm: of the head's blocks.
        conv_bias: give the 3x3 convolutions biases before the norms, as heads of 0.1.0 have them;
            plans that do not name the option mean ``True``.
        auxiliary_outputs: have outputs at 1/2, 1/4 and 1/8 of the size too, for deep supervision;
            ``model.head.deep_supervision`` switches them on.
        shortcut: add the answer to a linear classifier's of the last tap; it begins at zero.
        image_stem: correct the answer by a small convolutional path at the image's resolution.

    Raises:
        UserError: an impossible option, backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from .unetr import UNETRSegmentationModel

    return UNETRSegmentationModel(
        backbone,
        num_classes,
        decoder_channels=decoder_channels,
        negative_slope=negative_slope,
        image_skip=image_skip,
        upsample=upsample,
        norm=norm,
        conv_bias=conv_bias,
        auxiliary_outputs=auxiliary_outputs,
        shortcut=shortcut,
        image_stem=image_stem,
    )
