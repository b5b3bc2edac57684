"""Linear layers packed for oneDNN answer as torch's own."""

import copy
import pickle

import pytest
import torch
from torch import nn

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    create_backbone,
    enable_lora,
    export_program,
    get_vit_features,
    load_weights,
    pack_linears,
)
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import FakeBackbone
from vit_backbone.vits.packed import PackedLinear

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def x86(monkeypatch):
    monkeypatch.setattr("vit_backbone.vits.packed.platform.machine", lambda: "x86_64")


def packed_copy(module):
    module = copy.deepcopy(module)
    pack_linears(module)
    return module


# DINOv2's block; DINOv3's, without and with biases, which it adds in place; SwiGLU.
@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "vit_small_patch16_dinov3",
        "vit_small_patch16_dinov3_qkvb",
        "eva02_tiny_patch14_224",
    ],
)
def test_a_packed_backbone_answers_as_before(name):
    plain = create_backbone(name, pretrained=False)[0].eval()
    plain.blocks = plain.blocks[:2]
    packed = packed_copy(plain)
    assert sum(isinstance(part, PackedLinear) for part in packed.modules()) >= 8
    images = torch.randn(2, 3, 112, 112)
    with torch.inference_mode():
        for ours, theirs in zip(
            get_vit_features(packed, images, [0, 1]),
            get_vit_features(plain, images, [0, 1]),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_a_packed_layer_takes_every_shape(shape, bias):
    plain = nn.Linear(5, 7, bias=bias)
    packed = packed_copy(nn.Sequential(plain))[0]
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x))
        strided = torch.randn(*shape[:-1], 10)[..., ::2]
        torch.testing.assert_close(packed(strided), plain(strided))


def test_a_gradient_goes_through():
    plain = nn.Linear(5, 7)
    packed = packed_copy(nn.Sequential(plain))[0]
    one, other = (torch.ones(2, 5, requires_grad=True) for _ in range(2))
    packed(one).square().sum().backward()
    plain(other).square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_who_multiplies_by_the_weights_itself_gets_them():
    plain = nn.Linear(5, 7)  # as timm's EvaAttention does that adds its biases in one go
    packed = packed_copy(nn.Sequential(plain))[0]
    assert torch.equal(packed.weight, plain.weight)


def test_the_state_dict_stays_what_it_was():
    plain = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2, bias=False))
    packed = packed_copy(plain)
    again = copy.deepcopy(plain)
    again.load_state_dict(packed.state_dict())
    assert list(packed.state_dict()) == list(plain.state_dict())
    assert torch.equal(again[0].weight, plain[0].weight)


def test_autocast_decides_the_precision():
    plain = nn.Linear(5, 7)
    packed = packed_copy(nn.Sequential(plain))[0]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert packed(torch.ones(2, 5)).dtype == torch.bfloat16


def test_what_is_not_float32_is_left_alone():
    module = nn.Sequential(nn.Linear(5, 7).double(), nn.Linear(5, 7, device="meta"))
    pack_linears(module)
    assert [type(part) for part in module] == [nn.Linear, nn.Linear]


def test_a_subclass_is_left_alone_and_a_shared_layer_stays_shared():
    class Own(nn.Linear):
        pass

    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, Own(3, 3), nn.Sequential(shared))
    pack_linears(module)
    assert isinstance(module[0], PackedLinear)
    assert type(module[1]) is Own
    assert module[2][0] is module[0]


def test_a_layer_of_two_names_is_packed_under_both():
    module = nn.Module()
    module.one = module.other = nn.Linear(3, 3)
    pack_linears(module)
    assert isinstance(module.other, PackedLinear)
    assert module.one is module.other


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_packed_is_not_filled(strict, tmp_path):
    """Its state dict is a copy: what was written to that would be lost without a word."""
    backbone = create_backbone("test_vit", pretrained=False)[0]
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    packed = packed_copy(backbone)
    with pytest.raises(UserError, match=r"packed .*; fill or export the module before"):
        load_weights(packed, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"packed .*; fill or export the module before"):
        packed.load_state_dict(backbone.state_dict(), strict=strict)


def test_what_is_packed_is_not_exported():
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2))
    model.head.layer = nn.Linear(2, 2)
    pack_linears(model)
    said = r"packed .*; fill or export the module before|exporting needs torch 2\.8"
    with pytest.raises(UserError, match=said):
        export_program(model)


def test_adapters_are_not_packed_since_they_could_not_be_merged():
    backbone = create_backbone("test_vit", pretrained=False)[0]
    enable_lora(backbone)
    with pytest.raises(UserError, match=r"merge them \(disable_lora\) before packing"):
        pack_linears(backbone)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_a_hook_makes_are_not_taken_as_they_lie():
    plain = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)))
    with torch.no_grad():
        plain[0].weight_g.mul_(2)  # the hook makes the weight of it, in the next call
    pack_linears(plain)
    assert type(plain[0]) is nn.Linear


def test_where_nothing_was_measured_nothing_is_packed(monkeypatch):
    monkeypatch.setattr("vit_backbone.vits.packed.platform.machine", lambda: "arm64")
    module = nn.Sequential(nn.Linear(3, 3))
    pack_linears(module)
    assert type(module[0]) is nn.Linear


@pytest.mark.parametrize("bias", [True, False])
def test_copies_and_pickles_are_packed_anew(bias):
    packed = nn.Sequential(nn.Linear(8, 4, bias=bias)).eval()
    pack_linears(packed)
    image = torch.randn(2, 8)
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert type(again[0]) is PackedLinear
        assert not again[0].training
        assert torch.equal(again(image), packed(image))
        assert again.state_dict().keys() == packed.state_dict().keys()
