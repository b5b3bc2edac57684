"""What an adapter means: only it trains, and merging it changes nothing."""

import copy

import pytest
import timm
import torch

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    adapter_state_dict,
    create_backbone,
    disable_lora,
    enable_lora,
    get_vit_features,
)
from vit_backbone.heads.linear_head import LinearHead

# timm's three attention classes: plain, EVA without a qkv bias, EVA with one (_qkvb).
NAMES = ["test_vit", "vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"]


@pytest.fixture(params=NAMES)
def backbone(request):
    torch.manual_seed(0)
    return create_backbone(request.param, pretrained=False)[0]


def features(model):
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return get_vit_features(model, image)[-1]


def wake_blocks(model):
    """LayerScale begins at 1e-5, so that blocks would hardly matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".gamma_" in name:
                parameter.fill_(1)


def train_one_step(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # lora_B is zero at first, so lora_A's first gradient is too
        optimizer.zero_grad()
        given = features(model)
        (given * torch.randn_like(given)).mean().backward()  # their norm is a constant
        optimizer.step()


def test_exactly_the_adapters_get_a_gradient(backbone):
    depth = len(backbone.blocks)
    enable_lora(backbone)
    train_one_step(backbone)
    with_gradient = {
        n for n, p in backbone.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert all(".lora_" in name for name in with_gradient)
    assert len(with_gradient) == 2 * depth


def test_base_weights_stay_and_merged_equals_unmerged(backbone):
    base = {n: p.clone() for n, p in backbone.state_dict().items()}
    enable_lora(backbone, rank=4, lora_dropout=0.0)
    train_one_step(backbone)
    for name, tensor in backbone.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(tensor, base[name.replace(".base_layer", "")])
    backbone.eval()
    unmerged = features(backbone)
    disable_lora(backbone)
    merged = features(backbone)
    torch.testing.assert_close(merged, unmerged, rtol=1e-5, atol=1e-5)
    assert set(backbone.state_dict()) == set(base)
    weights = {n: p.clone() for n, p in backbone.state_dict().items()}
    assert not torch.equal(weights["blocks.0.attn.qkv.weight"], base["blocks.0.attn.qkv.weight"])
    disable_lora(backbone)
    assert all(torch.equal(p, weights[n]) for n, p in backbone.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_what_is_merged(backbone, dtype):
    enable_lora(backbone, rank=4)
    for name, parameter in backbone.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter)
    twin = copy.deepcopy(backbone)
    disable_lora(backbone)
    with torch.autocast("cpu", dtype):
        disable_lora(twin)
    weights = twin.state_dict()
    assert all(torch.equal(p, weights[n]) for n, p in backbone.state_dict().items())


def test_a_target_never_reaches_the_patch_embedding():
    backbone = create_backbone("test_vit", pretrained=False)[0]
    enable_lora(backbone, target_modules=["qkv", "proj", "fc1"])
    adapted = {n for n in backbone.state_dict() if ".lora_A." in n}
    assert len(adapted) == 3 * len(backbone.blocks)
    assert all(name.startswith("blocks.") for name in adapted)


def test_an_adapted_patch_embedding_trains_and_is_saved_with_the_adapters():
    backbone = create_backbone("test_vit", pretrained=False, in_chans=2)[0]
    enable_lora(backbone)
    trainable = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert {"patch_embed.proj.weight", "patch_embed.proj.bias"} < trainable
    assert set(adapter_state_dict(backbone)) == trainable
    copied = copy.deepcopy(backbone).requires_grad_(False)  # as a moving average is
    assert set(adapter_state_dict(copied)) == trainable


@pytest.mark.parametrize("variant", [{"use_dora": True}, {"use_rslora": True}])
def test_dora_and_rslora_train_and_merge(backbone, variant):
    enable_lora(backbone, rank=4, lora_dropout=0.0, **variant)
    train_one_step(backbone)
    backbone.eval()
    unmerged = features(backbone)
    disable_lora(backbone)
    torch.testing.assert_close(features(backbone), unmerged, rtol=1e-5, atol=1e-5)


def test_adapters_of_a_backbone_in_evaluation_are_in_evaluation():
    """peft's dropout begins in training mode: with trained adapters answers would be random."""
    backbone = create_backbone("test_vit", pretrained=False)[0].eval()
    enable_lora(backbone, lora_dropout=0.5)
    assert not any(module.training for module in backbone.modules())


def test_a_model_is_in_the_mode_that_what_trains_asks_for():
    backbone = create_backbone("test_vit", pretrained=False, drop_path_rate=0.5)[0]
    model = ViTSegmentationModel(backbone, LinearHead(backbone.num_features, 2))
    model.freeze_backbone()
    assert not any(module.training for module in backbone.blocks.modules())
    model.enable_lora()
    assert all(module.training for module in backbone.blocks.modules())
    model.disable_lora()  # frozen again, so that no path is dropped
    assert not any(module.training for module in backbone.blocks.modules())


def test_a_layer_that_timm_goes_around_is_no_target():
    """timm multiplies by in_proj's weight itself: adapters on it would train nothing."""
    with torch.device("meta"):
        backbone = create_backbone("vit_base_patch16_xp_224", pretrained=False)[0]
    with pytest.raises(UserError, match=r"\['in_proj'\] match no linear layer.*\['attn_out_proj'"):
        enable_lora(backbone, target_modules=["in_proj"])


def test_impossible_lora_is_refused():
    backbone = create_backbone("test_vit", pretrained=False)[0]
    with pytest.raises(UserError, match=r"\['qvk'\] match no linear layer.*'qkv'"):
        enable_lora(backbone, target_modules=["qvk"])
    enable_lora(backbone)
    with pytest.raises(UserError, match="enabled already"):
        enable_lora(backbone)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "eva02_tiny_patch14_224"])
def test_adapters_on_a_vit_that_timm_alone_has_built_train_and_merge(name):
    """Its attention multiplies by qkv's weight itself, around an adapter, where not told else."""
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=0, depth=2, dynamic_img_size=True)
    wake_blocks(backbone)
    image = torch.randn(1, 3, *(2 * side for side in backbone.patch_embed.patch_size))
    before = backbone(image)
    enable_lora(backbone, rank=2, lora_dropout=0.0)
    torch.testing.assert_close(backbone(image), before)
    backbone(image).square().sum().backward()
    adapters = [(n, p) for n, p in backbone.named_parameters() if ".lora_" in n]
    assert all(p.grad is not None for _, p in adapters)
    for _, adapter in adapters:
        torch.nn.init.normal_(adapter, std=0.1)
    adapted = backbone(image)
    assert (adapted - before).abs().max() > 1e-3
    disable_lora(backbone)
    torch.testing.assert_close(backbone(image), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}])
@pytest.mark.parametrize("broken", [torch.nan, 1e25])  # finite, and infinite once multiplied
def test_adapters_of_which_one_is_broken_are_left_as_they_are(broken, variant):
    backbone = create_backbone("test_vit", pretrained=False)[0]
    enable_lora(backbone, **variant)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".lora_A" in name or ".lora_B" in name:
                parameter.fill_(broken if "blocks.3" in name else 1.0)
    before = {n: p.clone() for n, p in backbone.state_dict().items()}
    with pytest.raises(UserError, match=r"blocks\.3\.attn\.qkv has NaN.*nothing is merged"):
        disable_lora(backbone)
    assert before.keys() == backbone.state_dict().keys()
    assert torch.equal(backbone.state_dict()[f := "blocks.0.attn.qkv.base_layer.weight"], before[f])
