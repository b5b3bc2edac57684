"""Backbones by family, size and timm name, and the features taken from them."""

import subprocess
import sys

import pytest
import timm
import torch

from vit_backbone import (
    LAYER_INDICES,
    MODEL_CONFIGS,
    UserError,
    create_backbone,
    get_vit_features,
    layer_indices,
    pretrained_statistics,
    resolve_backbone,
    resolve_taps,
)

NAMES = [
    "test_vit",  # CLS, position embedding
    "vit_small_patch14_reg4_dinov2",  # CLS and 4 registers
    "vit_small_patch16_dinov3_qkvb",  # RoPE, CLS and 4 registers
]


@pytest.fixture(scope="module", params=NAMES)
def backbone(request):
    torch.manual_seed(0)
    return create_backbone(request.param, pretrained=False)[0].eval()


def test_every_family_and_size_is_a_timm_model():
    for family in MODEL_CONFIGS.values():
        assert family["default_size"] in family["sizes"]
        assert f"patch{family['patch_size']}" in family["sizes"][family["default_size"]]
        for name in family["sizes"].values():
            assert timm.is_model(name), name


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("dinov3", None, "vit_large_patch16_dinov3.lvd1689m"),
        ("dinov3", "small", "vit_small_patch16_dinov3_qkvb.lvd1689m"),
        ("dinov3", "small_plus", "vit_small_plus_patch16_dinov3_qkvb.lvd1689m"),
        ("dinov2", "base", "vit_base_patch14_dinov2.lvd142m"),
        ("retfound", None, "vit_large_patch16_224.mae"),
        ("visionfm", None, "vit_base_patch16_224.mae"),
        ("vit_tiny_patch16_224", "ignored", "vit_tiny_patch16_224"),
    ],
)
def test_family_and_size_name_a_timm_model(name, size, expected):
    assert resolve_backbone(name, size) == expected


def test_a_size_that_the_family_lacks_is_refused_with_the_list():
    with pytest.raises(UserError, match=r"'visionfm' has no size 'large'; it has base"):
        resolve_backbone("visionfm", "large")


def test_create_backbone_says_what_it_built():
    module, patch_size, timm_name = create_backbone("dinov2", "small", pretrained=False)
    assert (patch_size, timm_name) == (14, "vit_small_patch14_dinov2.lvd142m")
    assert module.num_features == 384
    assert len(module.blocks) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "vit_huge_of_mine"}, "neither a family nor a timm model"),
        ({"model_name": "resnet18"}, "is not a plain ViT"),
        ({"model_name": "test_vit", "in_chans": 0}, "at least 1 input channel"),
        ({"model_name": "test_vit", "pretrained": "no"}, "pretrained 'no': True or False"),
        ({"model_name": "test_vit", "pretrained": 0}, "pretrained 0: True or False"),
    ],
)
def test_impossible_backbones_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        create_backbone(**{"pretrained": False} | arguments)


@pytest.mark.parametrize("pretrained", [None, False])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DINOv3", "neither a family nor a timm model; families: dinov3, dinov2, retfound, "),
        ("vit_small_patch14_dinov", "near it: .*vit_small_patch14_dinov2"),
        ("vit_small_patch14_dinov2.lvd", r"no such weights; there are vit_small_.*2\.lvd142m$"),
    ],
)
def test_a_mistyped_name_is_told_before_weights_are_looked_for(name, message, pretrained):
    with pytest.raises(UserError, match=message):
        create_backbone(name, pretrained=pretrained)


def test_statistics_are_of_weights_that_there_are():
    assert len(pretrained_statistics("vit_tiny_patch16_224")["mean"]) == 3
    assert pretrained_statistics("vit_of_mine") is None
    with pytest.raises(UserError, match=r"timm has no such weights; there are vit_tiny_"):
        pretrained_statistics("vit_tiny_patch16_224.nope")


def test_features_are_the_normed_patch_tokens(backbone):
    """Against timm's own token sequence: prefix tokens cut by hand, final norm applied by hand."""
    image = torch.randn(2, 3, *(4 * p for p in backbone.patch_embed.patch_size))
    last = get_vit_features(backbone, image)[-1]
    tokens = backbone.forward_features(image)[:, backbone.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(last, expected)


def test_features_come_in_the_order_asked_for(backbone):
    patch = backbone.patch_embed.patch_size[0]
    image, depth = torch.randn(1, 3, 2 * patch, 3 * patch), len(backbone.blocks)
    plain = get_vit_features(backbone, image, range(depth))
    assert all(f.shape == (1, backbone.num_features, 2, 3) for f in plain)
    asked = get_vit_features(backbone, image, [2, 0, 2, -1])
    for got, index in zip(asked, (2, 0, 2, depth - 1), strict=True):
        assert torch.equal(got, plain[index])


def test_gradient_flows_to_the_image(backbone):
    side = 2 * backbone.patch_embed.patch_size[0]
    image = torch.randn(1, 3, side, side, requires_grad=True)
    features = get_vit_features(backbone, image)[0]
    # Not their sum, which the last norm makes the same whatever the image.
    (features * torch.randn_like(features)).sum().backward()
    assert image.grad.abs().mean() > 1e-4


@pytest.mark.parametrize(
    ("size", "indices", "message"),
    [
        ((1, 3, 32, 32), [0, 99], "outside"),
        ((1, 3, 32, 32), [], "at least one block"),
        ((1, 3, 33, 32), None, "whole number of 16x16 patches"),
        ((0, 3, 32, 32), None, "at least one image"),
    ],
)
def test_impossible_features_are_refused(size, indices, message):
    model = create_backbone("test_vit", pretrained=False)[0]
    with pytest.raises(ValueError, match=message):
        get_vit_features(model, torch.zeros(size), indices)


@pytest.mark.parametrize("family", MODEL_CONFIGS)
def test_every_size_builds_on_the_meta_device(family):
    depths = set()
    for size in MODEL_CONFIGS[family]["sizes"]:
        with torch.device("meta"):
            module, patch_size, _ = create_backbone(family, size, pretrained=False, in_chans=4)
        assert module.patch_embed.proj.weight.shape[1:] == (4, patch_size, patch_size)
        depths.add(len(module.blocks))
    assert max(depths) == {"dinov3": 40, "dinov2": 40, "retfound": 24, "visionfm": 12}[family]


def test_presets_of_taps():
    assert resolve_taps("dinov3", 24) == [4, 11, 17, 23]
    assert resolve_taps(None, 40) == [9, 19, 29, 39]
    assert resolve_taps([-1, 0, 0, 1], 12) == [-1, 0, 0, 1]
    for taps, depth in (("dinov2", 24), ("dinov3", 13), ([12, 0, 0, 0], 12)):
        with pytest.raises(UserError):
            resolve_taps(taps, depth)
    resolve_taps("dinov3", 12)[0] = 7  # the caller's own list
    assert resolve_taps("dinov3", 12) == LAYER_INDICES[12] == [2, 5, 8, 11]


def test_layer_indices():
    assert LAYER_INDICES[12] == [2, 5, 8, 11]
    assert LAYER_INDICES[24] == [5, 11, 17, 23]
    assert layer_indices(6) == [0, 2, 3, 5]
    with pytest.raises(ValueError, match="3 blocks"):
        layer_indices(3)


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, vit_backbone; vit_backbone.MODEL_CONFIGS, vit_backbone.find_head; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
