"""The factory of the SegFormer model and its options; no torch until it is called.

The factory's explicit keyword parameters beyond the standard ones are the schema of
``model.decoder`` in a trainer's config.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_backbone import UserError

if TYPE_CHECKING:
    from .segformer import SegFormerSegmentationModel

NORMS = ("group", "batch")
NECKS = ("none", "pyramid")
UPSAMPLES = ("bilinear", "deconv")
# From each output of deep supervision to the next: full size, the patch grid.
DEEP_SUPERVISION_STRIDES = (1, 16)


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
    hidden_size: int = 256,
    dropout: float = 0.1,
    norm: Literal["group", "batch"] = "group",
    neck: Literal["none", "pyramid"] = "none",
    upsample: Literal["bilinear", "deconv"] = "bilinear",
    auxiliary_outputs: bool = False,
    **unknown: Any,
) -> "SegFormerSegmentationModel":
    """Build a ViT with the SegFormer head: (B, in_channels, H, W) in, logits of that size out.

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
        hidden_size: width of the head, at least 1.
        dropout: before the classifier, 0 to below 1.
        norm: ``batch`` is the paper's, ``group`` is for small batches.
        neck: ``pyramid`` rescales the taps to 4, 2, 1 and 1/2 times the patch grid first, so that
            the head answers at 4 times the grid.
        upsample: how the answer gets to 16 times the grid; ``deconv`` learns it.
        auxiliary_outputs: have an output at the patch grid too, for deep supervision;
            ``model.head.deep_supervision`` switches it on.
        unknown: options that this head does not know are warned about and ignored.

    Raises:
        UserError: an impossible option, backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from vit_backbone import build_segmentation_model

    from .segformer import SegFormerSegmentationModel

    if unknown:
        warnings.warn(f"the SegFormer head ignores unknown options {sorted(unknown)}", stacklevel=2)
    check_options(hidden_size, dropout, norm, neck, upsample)
    return build_segmentation_model(
        lambda backbone: SegFormerSegmentationModel(
            backbone,
            num_classes,
            hidden_size,
            dropout,
            norm=norm,
            neck=neck,
            upsample=upsample,
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
    hidden_size: int = 256,
    dropout: float = 0.1,
    norm: str = "group",
    neck: str = "none",
    upsample: str = "bilinear",
    auxiliary_outputs: bool = False,
) -> None:
    """Refuse values that no SegFormer head can be built with.

    Raises:
        UserError: a hidden size below 1, a dropout outside of 0 to below 1, or a name not listed.
    """
    if hidden_size < 1:
        raise UserError(f"hidden_size {hidden_size}: it must be at least 1")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout {dropout}: it must be at least 0 and below 1")
    named = (("norm", norm, NORMS), ("neck", neck, NECKS), ("upsample", upsample, UPSAMPLES))
    for name, value, known in named:
        if value not in known:
            raise UserError(f"{name} {value!r}: there is {', '.join(known)}")


create_segformer_model = create_segmentation_model
"""The same factory by its longer name."""
