"""Frozen is frozen for any number of channels: no gradient, nothing kept, no randomness."""

import pytest
import torch

from vit_backbone import (
    ViTSegmentationModel,
    adapter_state_dict,
    create_backbone,
    find_head,
    patch_embedding_trains,
)
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import FakeBackbone


def build(channels, backbone_options=None, **arguments):
    torch.manual_seed(0)
    standard = {"pretrained": False, "in_channels": channels, "lora_rank": 2}
    return find_head("linear")(
        "test_vit", backbone_options=backbone_options, **(standard | arguments)
    )


def kept_in(model, image):
    """Return the tensors that the backbone keeps for a backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t), lambda t: t):
        model.backbone(image)
    return kept


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_frozen_means_frozen(channels):
    norm = {"mean": [0.5], "std": [0.25]}
    options = {"drop_path_rate": 0.5, "input_norm": norm}
    model = build(channels, options, freeze_backbone=True).train()
    image = torch.randn(2, channels, 32, 32)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert not kept_in(model, image)
    assert torch.equal(model(image), model(image))
    model(image).square().mean().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_under_lora_the_adapters_train_and_an_adapted_patch_embedding(channels):
    model = build(channels)
    trained = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    embedding = {n for n in trained if ".lora_" not in n}
    adapted = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert embedding == (set() if channels == 3 else adapted)
    assert trained > embedding
    assert set(adapter_state_dict(model.backbone)) == trained


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("then", ["merged", "frozen", "frozen first"])
def test_frozen_in_any_order(channels, then):
    """A backbone whose adapters were merged is frozen, and one that had adapters may be."""
    model = build(channels, {"drop_path_rate": 0.5}, use_lora=then != "frozen first")
    if then == "merged":
        model.disable_lora()
    elif then == "frozen":
        model.freeze_backbone()
    else:
        model.freeze_backbone()
        model.enable_lora(rank=2)
        model.disable_lora()
    model.train()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert not kept_in(model, torch.randn(2, channels, 32, 32))


@pytest.mark.parametrize("channels", [1, 2])
def test_behind_a_frozen_patch_embedding_the_last_blocks_train(channels):
    model = build(channels, {"train_last_blocks": 1}, freeze_backbone=True)
    trained = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    last = f"blocks.{len(model.backbone.blocks) - 1}."
    assert trained
    assert all(name.startswith((last, "norm.")) for name in trained)


def test_the_rule():
    """Measured: docs/recipe.md. A file with the image's channels was not adapted."""
    assert [patch_embedding_trains(n) for n in (1, 2, 3, 4)] == [True, True, False, True]
    assert not any(patch_embedding_trains(n, frozen=True) for n in (1, 2, 3, 4))
    assert not patch_embedding_trains(4, trained_chans=4)
    assert not patch_embedding_trains(1, trained_chans=1)


def test_the_sum_of_the_kernels_is_the_repeated_grey_value(tmp_path):
    colour = create_backbone("test_vit", pretrained=False)[0].eval()
    torch.save(colour.state_dict(), tmp_path / "colour.pth")
    grey = create_backbone("test_vit", None, tmp_path / "colour.pth", in_chans=1)[0].eval()
    image = torch.randn(1, 1, 32, 32)
    got, expected = (
        m.forward_features(x) for m, x in ((grey, image), (colour, image.repeat(1, 3, 1, 1)))
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("channels", "trains"), [(4, False), (2, True)])
def test_a_file_that_has_the_images_channels_was_not_adapted(channels, trains, tmp_path):
    file = tmp_path / "weights.pth"
    its = channels if not trains else 3
    torch.save(create_backbone("test_vit", pretrained=False, in_chans=its)[0].state_dict(), file)
    model = build(channels, pretrained=None, checkpoint_path=file)
    assert model.backbone.patch_embed.proj.weight.requires_grad == trains


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("trains", [True, False])
def test_plans_can_say_which(channels, trains):
    """A network that is rebuilt from plans has no file to look at."""
    model = build(channels, {"train_patch_embedding": trains}, freeze_backbone=True)
    assert model.backbone.patch_embed.proj.weight.requires_grad == trains


def test_a_backbone_of_ones_own_freezes():
    """Whatever its patch embedding is made of: the model asks for its ``patch_size`` alone."""
    backbone = FakeBackbone(8)
    backbone.patch_embed.stem = backbone.patch_embed.proj
    del backbone.patch_embed.proj
    model = ViTSegmentationModel(backbone, LinearHead(8, 2))
    model.freeze_backbone()
    assert not any(p.requires_grad for p in model.backbone.parameters())
