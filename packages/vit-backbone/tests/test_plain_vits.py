"""Which of timm's models are backbones: plain ViTs, in which nothing trains that never runs.

`ddp_ranks.py` is what the two processes of the last test do.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vit_backbone import UserError, ViTSegmentationModel, create_backbone, get_vit_features
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing.tools import parameters_without_gradient


def on_meta(name, **options):
    with torch.device("meta"):
        return create_backbone(name, pretrained=False, **options)[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_tiny_r_s16_p8_224", "HybridEmbed"),  # a convolutional stem: 3x3 maps for 13x13
        ("vit_base_r50_s16_224", "HybridEmbed"),
        ("vit_base_mci_224", "HybridEmbed"),
        ("vitamin_small_224", "HybridEmbed"),
        ("naflexvit_base_patch16_gap", "not a plain ViT"),
        ("swin_tiny_patch4_window7_224", "not a plain ViT"),
        ("resnet18", "not a plain ViT"),
        ("convnext_atto", "not a plain ViT"),
        ("maxvit_nano_rw_256", "not a plain ViT"),
        ("mobilenetv3_small_100", "not a plain ViT"),
    ],
)
def test_what_is_no_plain_vit_is_refused_in_one_line(name, why):
    with pytest.raises(UserError, match=f"timm model '{name}' is not a plain ViT.*") as caught:
        on_meta(name)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["vit_pwee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224"])
def test_parallel_blocks_are_plain(name):
    model = on_meta(name)
    image = torch.zeros(1, 3, 32, 48, device="meta")
    (features,) = get_vit_features(model, image, [0])
    assert features.shape[-2:] == (2, 3)


# Attention pooling in both of timm's classes, RMSNorm after the pooling, a distillation token,
# parallel blocks, no final norm at all.
POOLED = [
    "vit_base_patch16_siglip_224",
    "vit_pe_core_tiny_patch16_384",
    "test_vit3",
    "test_vit4",
    "deit_tiny_distilled_patch16_224",
    "vit_pwee_patch16_reg1_gap_256",
    "vit_pe_spatial_tiny_patch16_512",
]


@pytest.mark.parametrize("name", POOLED)
def test_nothing_trains_that_never_runs(name):
    model = on_meta(name).train()
    get_vit_features(model, torch.zeros(1, 3, 64, 64, device="meta"))[-1].sum().backward()
    last = len(model.blocks) - 1
    got = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not got
    assert any(p.requires_grad for p in model.blocks[last].parameters())


def test_attention_pooling_stays_in_the_state_dict():
    """Weight files and checkpoints of 0.1.0 hold it."""
    model = on_meta("test_vit3")
    pooling = [name for name in model.state_dict() if name.startswith("attn_pool.")]
    assert len(pooling) == 13
    assert not any(p.requires_grad for p in model.attn_pool.parameters())


def test_the_norm_after_pooling_norms_the_tokens():
    """timm's fc_norm, an RMSNorm here: features are the normed tokens, not the raw ones."""
    torch.manual_seed(0)
    model = create_backbone("test_vit4", pretrained=False)[0].eval()
    assert isinstance(model.fc_norm, nn.Identity)
    (features,) = get_vit_features(model, torch.randn(1, 3, 32, 32), [-1])
    scale = features.square().mean(1).sqrt()
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["test_vit3", "test_vit4"])
def test_full_tuning_reaches_every_trainable_tensor(name):
    backbone = create_backbone(name, pretrained=False)[0]
    model = ViTSegmentationModel(backbone, LinearHead(backbone.num_features, 2)).train()
    model(torch.randn(1, 3, 32, 32)).square().mean().backward()
    assert not parameters_without_gradient(model)


@pytest.mark.slow
def test_two_ranks_tune_all_of_a_siglip_like_model(tmp_path):
    """DDP waits for tensors without a gradient: of two gloo ranks the second step died."""
    script = Path(__file__).with_name("ddp_ranks.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / f"rank_{rank}.pt") for rank in (0, 1))
    for name in ("test_vit3", "test_vit4"):
        assert all(torch.equal(a, b) for a, b in zip(one[name], two[name], strict=True))
