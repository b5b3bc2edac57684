"""Calls as a user writes them, for the type checker alone (nox -s lint): nothing here is run.

Where a comment has a rule ignored, the call is wrong and the checker must say so: it complains of
comments that are not needed.
"""

from pathlib import Path
from typing import assert_type

import torch
from torch import nn

from vit_backbone import (
    PlainViT,
    ViTSegmentationModel,
    adapter_state_dict,
    available_heads,
    create_backbone,
    create_bakbone,  # ty: ignore[import-not-found]
    disable_lora,
    enable_lora,
    export_onnx,
    export_program,
    find_weights,
    get_vit_features,
    head_factory,
    load_weights,
)
from vit_backbone.heads.linear import create_segmentation_model

backbone, patch_size, timm_name = create_backbone("dinov2", "small", "weights.safetensors")
assert_type((backbone, patch_size, timm_name), tuple[PlainViT, int, str])
assert_type(backbone.patch_embed.proj.in_channels, int)
create_backbone("dinov2", checkpoint_path=Path("weights.safetensors"), in_chans=4, patch_size=16)
create_backbone(in_chans="4")  # ty: ignore[invalid-argument-type]
create_backbone(inchans=4)  # ty: ignore[unknown-argument]
create_bakbone()

maps = get_vit_features(backbone, torch.zeros(1, 3, 28, 28), [2, 5, 8, 11])
assert_type(maps, list[torch.Tensor])
get_vit_features(backbone, indices=[11])  # ty: ignore[missing-argument]

enable_lora(backbone, rank=4, target_modules=("qkv", "proj"), use_dora=True)
assert_type(adapter_state_dict(backbone), dict[str, torch.Tensor])
disable_lora(backbone)
load_weights(backbone, find_weights("dinov2", timm_name))  # ty: ignore[invalid-argument-type]
if (file := find_weights("dinov2", timm_name)) is not None:
    assert_type(load_weights(backbone, file).sha256, str)

model = create_segmentation_model("dinov3", "small", 4, pretrained=False, image_stem=True)
assert_type(model, ViTSegmentationModel)
create_segmentation_model(num_clases=4)  # ty: ignore[unknown-argument]
create_segmentation_model(num_classes="4")  # ty: ignore[invalid-argument-type]
create_segmentation_model(image_stem="yes")  # ty: ignore[invalid-argument-type]
assert_type(export_onnx(model, "model.onnx", size=(256, 256)), float)
export_program(model.head)  # ty: ignore[invalid-argument-type]
ViTSegmentationModel(nn.Identity(), nn.Identity()).freeze_backbone(except_last_blocks=2)
assert_type(available_heads(), list[str])


@head_factory
def strangers(backbone: nn.Module, num_classes: int, *, width: int = 64) -> nn.Module:
    """Build a head that knows nothing of our types."""
    return nn.Conv2d(width, num_classes, 1)


strangers("dinov2", use_lora=False, in_channels=1, width=32)
strangers("dinov2", depth=3)  # ty: ignore[unknown-argument]
