"""Calls as a user writes them, for the type checker alone (nox -s lint): nothing here is run.

Where a comment has a rule ignored, the call is wrong and the checker must say so.
"""

from typing import assert_type

from torch import nn

from vit_backbone import ViTSegmentationModel, create_backbone
from vit_heads_unetr import (
    LIGHT_CHANNELS,
    UNETRHead,
    UNETRSegmentationModel,
    create_segmentation_model,
)

model = create_segmentation_model(
    "dinov3", "small", 2, None, decoder_channels=LIGHT_CHANNELS, upsample="deconv", norm="layer"
)
assert_type(model, ViTSegmentationModel)
create_segmentation_model(decoder_channels=64)  # ty: ignore[invalid-argument-type]
create_segmentation_model(norm="batch")  # ty: ignore[invalid-argument-type]
create_segmentation_model(hidden_size=128)  # ty: ignore[unknown-argument]

UNETRHead(384, 3, (64, 32, 16, 8, 8), image_skip=True, image_channels=1)
UNETRHead("small", 3)  # ty: ignore[invalid-argument-type]
UNETRSegmentationModel(nn.Identity(), 3, conv_bias=True)
UNETRSegmentationModel(create_backbone("dinov2"), 3)  # ty: ignore[invalid-argument-type]
