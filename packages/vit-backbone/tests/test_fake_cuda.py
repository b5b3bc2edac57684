"""Real backbones, at full size, run on a CUDA device that is not there."""

import pytest
import torch

from vit_backbone import MODEL_CONFIGS, find_head
from vit_backbone.testing import run_on_fake_cuda

BACKBONES = [(family, None) for family in MODEL_CONFIGS] + [
    ("dinov3", "small"),
    ("dinov3", "huge_plus"),
    ("dinov2", "small_reg4"),
    ("test_vit", None),
]


@pytest.mark.parametrize(("family", "size"), BACKBONES)
def test_nothing_is_made_on_another_device(family, size):
    image = (2, 1, 70, 45)
    with torch.device("meta"):
        model = find_head("linear")(
            family,
            size,
            num_classes=4,
            in_channels=image[1],
            pretrained=False,
            lora_rank=4,
            backbone_options={"input_norm": {"mean": [0.5] * image[1], "std": [0.2] * image[1]}},
            image_stem=True,
        )
    logits = run_on_fake_cuda(model.train(), image)
    assert logits.device.type == "cuda"
    assert logits.shape == (image[0], 4, *image[2:])
