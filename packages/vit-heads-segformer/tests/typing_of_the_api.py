"""Calls as a user writes them, for the type checker alone (nox -s lint): nothing here is run.

Where a comment has a rule ignored, the call is wrong and the checker must say so.
"""

from typing import assert_type

import torch
from torch import nn

from vit_backbone import ViTSegmentationModel, create_backbone, export_onnx
from vit_heads_segformer import (
    SegFormerHead,
    SegFormerSegmentationModel,
    create_segformer_model,
    create_segmentation_model,
)

model = create_segmentation_model(
    "dinov3", "large", num_classes=4, pretrained=False, neck="pyramid", hidden_size=128
)
assert_type(model, ViTSegmentationModel)
assert_type(create_segformer_model("dinov2", use_lora=False, dropout=0.0), ViTSegmentationModel)
export_onnx(model, "model.onnx", size=(250, 300))
create_segmentation_model(neck="pyramide")  # ty: ignore[invalid-argument-type]
create_segmentation_model(hidden_size="128")  # ty: ignore[invalid-argument-type]
create_segmentation_model(hiden_size=128)  # ty: ignore[unknown-argument]

head = SegFormerHead([384] * 4, 3, norm="batch", image_stem=True)
logits = head.forward([torch.zeros(1, 384, 4, 4)] * 4, torch.zeros(1, 3, 64, 64))
assert_type(logits, torch.Tensor | list[torch.Tensor])
logits.argmax(1)  # ty: ignore[missing-union-attribute] - a list with deep supervision
SegFormerHead(384, 3)  # ty: ignore[invalid-argument-type]
SegFormerSegmentationModel(nn.Identity(), 3, shortcut=True)
SegFormerSegmentationModel(create_backbone("dinov2"), 3)  # ty: ignore[invalid-argument-type]
