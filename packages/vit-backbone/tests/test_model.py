"""The segmentation model: geometry, freezing, and the suite that heads inherit."""

import pytest
import torch
from torch import nn

from vit_backbone import ViTSegmentationModel, create_backbone
from vit_backbone.model import pad_to_patches
from vit_backbone.testing import FakeBackbone, HeadConformance, response_center


class SmallHead(nn.Module):
    """The least that is a head: one classifier on the last tap."""

    def __init__(self, embed_dim, num_classes):
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(embed_dim, embed_dim, 1) for _ in range(4))
        self.seg_layers = nn.ModuleList([nn.Conv2d(embed_dim, num_classes, 1)])

    def forward(self, features, image):
        mixed = sum(mix(tap) for mix, tap in zip(self.mix, features, strict=True))
        return self.seg_layers[0](mixed)


class TestSmallHead(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return SmallHead(embed_dim, num_classes)


class Zooms(ViTSegmentationModel):
    """The trap: a 2**4 decoder on a patch-14 grid, cropped instead of resampled."""

    def forward(self, image):
        height, width = image.shape[-2:]
        padded = pad_to_patches(image, self.backbone.patch_embed.patch_size)
        features = self.backbone.forward_intermediates(padded, [0, 1, 2, 3])
        logits = nn.functional.interpolate(self.head(features, padded), scale_factor=16)
        return logits[..., :height, :width]


def test_the_alignment_check_sees_the_14_percent_zoom():
    torch.manual_seed(0)
    model = Zooms(FakeBackbone(8, patch_size=14), SmallHead(8, 3)).eval()
    center = response_center(model, (250, 260), (190, 60))
    assert center[0] < 190 - 14


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), 1), ((7, 3), 7), ((16, 40), 40), ((20, 20), 20)]
)
def test_padding_goes_below_and_right_only(size, expected):
    image = torch.randn(1, 2, *size)
    padded = pad_to_patches(image, (16, 14))
    assert padded.shape[-2] % 16 == 0
    assert padded.shape[-1] % 14 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], image)


def test_padding_reflects_where_it_can():
    row = torch.arange(6.0).reshape(1, 1, 1, 6)
    assert pad_to_patches(row, (1, 8))[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
    assert pad_to_patches(row[..., :2], (1, 8))[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = create_backbone("test_vit", pretrained=False)[0]
    return ViTSegmentationModel(backbone, SmallHead(backbone.num_features, 2))


def test_frozen_means_frozen(model):
    model.freeze_backbone()
    model.train()
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):
        model.backbone(torch.randn(1, 3, 32, 32))
    assert not saved
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_an_adapted_patch_embedding_trains_though_frozen():
    backbone = create_backbone("test_vit", pretrained=False, in_chans=1)[0]
    model = ViTSegmentationModel(backbone, SmallHead(backbone.num_features, 2))
    model.freeze_backbone()
    trainable = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert trainable == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_print_trainable_parameters_prints(model, capsys):
    model.enable_lora(rank=2)
    model.print_trainable_parameters(detailed=True)
    out = capsys.readouterr().out
    assert "backbone.blocks.0.attn.qkv.lora_A.default.weight: (2, 64)" in out
    assert "trainable: " in out.splitlines()[-1]
    model.disable_lora()
