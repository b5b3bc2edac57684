"""The factory of the UNETR model and its options; no torch until it is called.

The factory's explicit keyword parameters beyond the standard ones are the schema of
``model.decoder`` in a trainer's config.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_backbone import UserError

if TYPE_CHECKING:
    from .unetr import UNETRSegmentationModel

DEFAULT_CHANNELS = (512, 256, 128, 64, 32)
# 6 GFLOP at 256 px on top of a ViT-S or -L, where the default costs 88.
LIGHT_CHANNELS = (128, 64, 32, 16, 16)
# From each output of deep supervision to the next: full size, 1/2, 1/4, 1/8.
DEEP_SUPERVISION_STRIDES = (1, 2, 2, 2)
UPSAMPLES = ("bilinear", "deconv")
NORMS = ("group", "instance", "layer")
OPTIONS_OF_OLD_PLANS = {"conv_bias": True}


def create_segmentation_model(
    backbone_name: str = "dinov3",
    backbone_size: str | None = None,
    num_classes: int = 1,
    checkpoint_path: str | Path | None = None,
    freeze_backbone: bool = False,
    use_lora: bool = True,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    lora_target_modules: Sequence[str] | None = None,
    *,
    pretrained: bool | None = None,
    in_channels: int = 3,
    backbone_options: Mapping[str, Any] | None = None,
    decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
    negative_slope: float = 0.01,
    image_skip: bool = False,
    upsample: Literal["bilinear", "deconv"] = "bilinear",
    norm: Literal["group", "instance", "layer"] = "group",
    conv_bias: bool = False,
    auxiliary_outputs: bool = False,
    **unknown: Any,
) -> "UNETRSegmentationModel":
    """Build a ViT with the UNETR head: (B, in_channels, H, W) in, logits of that size out.

    Args:
        backbone_name: a family (dinov3, dinov2, retfound, visionfm) or a timm ViT's name.
        backbone_size: a size of the family; ``None`` is its default.
        num_classes: number of output channels, at least 1.
        checkpoint_path: a local weight file; it wins over ``pretrained``.
        freeze_backbone: train the head alone; it wins over ``use_lora``.
        use_lora: tune the backbone by LoRA; its own weights are then frozen in any case.
        lora_rank: rank of the LoRA update.
        lora_alpha: the update is scaled by lora_alpha / lora_rank.
        lora_dropout: dropout before the adapters, 0 to below 1.
        lora_target_modules: names of linear layers in the blocks; ``None`` is ``["qkv"]``.
        pretrained: ``None`` is the family's released weights, ``False`` random initialisation.
        in_channels: number of input channels, at least 1.
        backbone_options: the rarer ones; see `vit_backbone.build_segmentation_model`.
        decoder_channels: the five widths of the head, from coarse to fine.
        negative_slope: of the head's LeakyReLUs, at least 0.
        image_skip: let the decoder see the image at full resolution, as the paper does.
        upsample: how the decoder doubles the size.
        norm: of the head's blocks.
        conv_bias: give the 3x3 convolutions biases before the norms, as heads of 0.1.0 have them;
            plans that do not name the option mean ``True``.
        auxiliary_outputs: have outputs at 1/2, 1/4 and 1/8 of the size too, for deep supervision;
            ``model.head.deep_supervision`` switches them on.
        unknown: options that this head does not know are warned about and ignored.

    Raises:
        UserError: an impossible option, backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from vit_backbone import build_segmentation_model

    from .unetr import UNETRSegmentationModel

    if unknown:
        warnings.warn(f"the UNETR head ignores unknown options {sorted(unknown)}", stacklevel=2)
    check_options(decoder_channels, negative_slope, image_skip, upsample, norm)
    return build_segmentation_model(
        lambda backbone: UNETRSegmentationModel(
            backbone,
            num_classes,
            decoder_channels,
            negative_slope,
            image_skip=image_skip,
            upsample=upsample,
            norm=norm,
            conv_bias=conv_bias,
            auxiliary_outputs=auxiliary_outputs,
        ),
        backbone_name=backbone_name,
        backbone_size=backbone_size,
        checkpoint_path=checkpoint_path,
        freeze_backbone=freeze_backbone,
        use_lora=use_lora,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        pretrained=pretrained,
        in_channels=in_channels,
        backbone_options=backbone_options,
    )


def check_options(
    decoder_channels: Sequence[int] = DEFAULT_CHANNELS,
    negative_slope: float = 0.01,
    image_skip: bool = False,
    upsample: str = "bilinear",
    norm: str = "group",
    conv_bias: bool = False,
    auxiliary_outputs: bool = False,
) -> None:
    """Refuse values that no UNETR head can be built with.

    Raises:
        UserError: not five positive widths, a negative slope below 0, or a name not listed.
    """
    if len(decoder_channels) != 5 or min(decoder_channels) < 1:
        raise UserError(
            f"decoder_channels {list(decoder_channels)}: five positive widths are needed, "
            f"coarse to fine, such as {list(DEFAULT_CHANNELS)}"
        )
    if not 0 <= negative_slope < math.inf:
        raise UserError(f"negative_slope {negative_slope}: it must be at least 0")
    for name, value, known in (("upsample", upsample, UPSAMPLES), ("norm", norm, NORMS)):
        if value not in known:
            raise UserError(f"{name} {value!r}: there is {', '.join(known)}")
