"""Heads of 0.1.0 had biases before their norms: an option keeps them, for their checkpoints."""

import pytest
import torch
from torch import nn

from vit_backbone import head_options, options_of_old_plans
from vit_backbone.testing import HeadConformance
from vit_heads_unetr import ConvBlock, DeconvBlock, UNETRHead, create_segmentation_model

CHANNELS = (12, 8, 6, 4, 4)


class TestWithBiases(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, conv_bias=True)

    def make_deep_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, conv_bias=True, auxiliary_outputs=True)


def head_of_0_1_0(**options):
    """Build the head as 0.1.0 did: its convolutions were made with biases."""
    torch.manual_seed(0)
    head = UNETRHead(8, 3, CHANNELS, **options)
    for block in [m for m in head.modules() if isinstance(m, (DeconvBlock, ConvBlock))]:
        for i, layer in enumerate(block):
            if isinstance(layer, nn.Conv2d):
                sizes = layer.in_channels, layer.out_channels
                block[i] = nn.Conv2d(*sizes, kernel_size=3, padding=1)
    return head.eval()


@pytest.mark.parametrize("options", [{}, {"image_skip": True, "upsample": "deconv"}], ids=str)
def test_a_checkpoint_of_0_1_0_loads_strictly_and_predicts_the_same(options):
    old = head_of_0_1_0(**options)
    new = UNETRHead(8, 3, CHANNELS, conv_bias=True, **options).eval()
    assert list(new.state_dict()) == list(old.state_dict())
    new.load_state_dict(old.state_dict())
    taps, image = [torch.randn(2, 8, 2, 3) for _ in range(4)], torch.randn(2, 3, 32, 48)
    assert torch.equal(new(taps, image), old(taps, image))


def test_the_biases_matter():
    """A norm of groups takes the mean of several channels away, not each channel's bias."""
    head = UNETRHead(8, 3, CHANNELS, conv_bias=True).eval()
    taps, image = [torch.randn(1, 8, 2, 2) for _ in range(4)], torch.randn(1, 3, 32, 32)
    before = head(taps, image)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.endswith(".1.bias") and name.startswith("encoder"):
                parameter.normal_()
    assert not torch.allclose(head(taps, image), before, atol=1e-3)


def test_the_factorys_default_is_the_specification_and_old_plans_mean_biases():
    assert head_options(create_segmentation_model)["conv_bias"].default is False
    assert options_of_old_plans(create_segmentation_model) == {"conv_bias": True}
    arguments = {"pretrained": False, "use_lora": False, "decoder_channels": CHANNELS}
    for given in ({}, {"conv_bias": True}):
        model = create_segmentation_model("test_vit", **arguments, **given)
        convolutions = [m for m in model.head.modules() if type(m) is nn.Conv2d]
        with_bias = [m for m in convolutions if m.kernel_size == (3, 3) and m.bias is not None]
        assert bool(with_bias) == bool(given)
