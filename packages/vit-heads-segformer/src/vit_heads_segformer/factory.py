"""The factory of the SegFormer model; no torch until it is called.

Its explicit parameters are the schema of ``model.decoder`` in a trainer's config.
"""

from typing import TYPE_CHECKING, Literal

from vit_backbone import head_factory

from .options import DEEP_SUPERVISION_STRIDES, check_options

if TYPE_CHECKING:
    from torch import nn

    from .segformer import SegFormerSegmentationModel

# `head_factory`, and whoever asks a head what it can do, look for them beside the factory.
__all__ = [
    "DEEP_SUPERVISION_STRIDES",
    "check_options",
    "create_segmentation_model",
    "create_segformer_model",
]


@head_factory
def create_segmentation_model(
    backbone: "nn.Module",
    num_classes: int,
    *,
    hidden_size: int = 256,
    dropout: float = 0.1,
    norm: Literal["group", "batch"] = "group",
    neck: Literal["none", "pyramid"] = "none",
    upsample: Literal["bilinear", "deconv"] = "bilinear",
    auxiliary_outputs: bool = False,
    shortcut: bool = False,
    image_stem: bool = False,
) -> "SegFormerSegmentationModel":
    """Build a ViT with the SegFormer head: (B, in_channels, H, W) in, logits of that size out.

    The arguments of every head are `vit_backbone.heads.factory.standard_factory`'s; unknown options
    are warned about and ignored.

    Args:
        backbone: what they build.
        num_classes: number of output channels, at least 1.
        hidden_size: width of the head, at least 1.
        dropout: before the classifier, 0 to below 1.
        norm: ``batch`` is the paper's, ``group`` is for small batches.
        neck: ``pyramid`` rescales the taps to 4, 2, 1 and 1/2 times the patch grid first, so that
            the head answers at 4 times the grid.
        upsample: how the answer gets to 16 times the grid; ``deconv`` learns it.
        auxiliary_outputs: have an output at the patch grid too, for deep supervision;
            ``model.head.deep_supervision`` switches it on.
        shortcut: add the answer to a linear classifier's of the last tap; it begins at zero.
        image_stem: correct the answer by a small convolutional path at the image's resolution.

    Raises:
        UserError: an impossible option, backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from .segformer import SegFormerSegmentationModel

    return SegFormerSegmentationModel(
        backbone,
        num_classes,
        hidden_size=hidden_size,
        dropout=dropout,
        norm=norm,
        neck=neck,
        upsample=upsample,
        auxiliary_outputs=auxiliary_outputs,
        shortcut=shortcut,
        image_stem=image_stem,
    )


create_segformer_model = create_segmentation_model
"""The same factory by its longer name."""
