"""The segmentation model: geometry, freezing, and the suite that heads inherit."""

import re
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    build_segmentation_model,
    create_backbone,
    get_vit_features,
)
from vit_backbone.segmentation.geometry import fit_to_image, pad_to_patches
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


def test_a_vit_whose_tokens_are_not_normed_is_refused():
    """timm norms after pooling there: the taps would come as they are, at any scale."""
    backbone = timm.create_model("vit_base_patch16_rope_reg1_gap_256", num_classes=0, depth=1)
    with pytest.raises(UserError, match=r"norms after pooling \(fc_norm\).*create_backbone"):
        ViTSegmentationModel(backbone, SmallHead(768, 2))
    with pytest.raises(UserError, match=r"norms after pooling"):
        get_vit_features(backbone, torch.randn(1, 3, 32, 32), [0])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(3, 16, 16), "an image of 3 dimensions came"),
        (torch.zeros(1, 3, 1, 16, 16), "an image of 5 dimensions came"),
        (torch.zeros(1, 3, 0, 16), "no pixels came"),
        (torch.zeros(1, 4, 16, 16), "images of 4 channels came; 3 are expected"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "an image of torch.uint8 came; normalise"),
    ],
    ids=["one image", "a batch of volumes", "no rows", "a channel more", "bytes"],
)
def test_what_is_no_batch_of_images_is_refused(image, said):
    model = ViTSegmentationModel(FakeBackbone(8), SmallHead(8, 2))
    with pytest.raises(UserError, match=said):
        model(image)
    if image.is_floating_point():  # features of whole numbers are the backbone's own affair
        with pytest.raises(UserError, match=said):
            get_vit_features(model.backbone, image)


def test_features_are_a_backbones_and_not_a_models():
    with pytest.raises(UserError, match=r"a ViTSegmentationModel is no backbone; .*\.backbone"):
        get_vit_features(
            ViTSegmentationModel(FakeBackbone(8), SmallHead(8, 2)), torch.zeros(1, 3, 16, 16)
        )


@pytest.mark.parametrize("blocks", ["2", 1.0, None, True])
def test_blocks_that_go_on_training_are_a_number(blocks):
    with pytest.raises(UserError, match="a whole number is expected"):
        ViTSegmentationModel(FakeBackbone(8), SmallHead(8, 2)).freeze_backbone(blocks)


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


# One model of each of timm's attention classes and of each kind of position embedding.
FAMILIES = [
    "test_vit",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb",
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("use_lora", "freeze_backbone", "last_blocks", "trains"),
    [
        (True, False, 0, r".*\.lora_[AB]\."),
        (False, True, 0, r"never"),
        (False, True, 2, r"blocks\.({0}|{1})\.|norm\."),
        (False, False, 0, r".*"),
    ],
    ids=["lora", "frozen", "last_2", "full"],
)
def test_what_trains_is_exactly_what_was_asked(
    name, use_lora, freeze_backbone, last_blocks, trains
):
    # Dropping a path leaves its weights without a gradient, but not where all is frozen.
    drop_path_rate = 0.2 if freeze_backbone and not last_blocks else 0.0
    options = {"drop_path_rate": drop_path_rate, "train_last_blocks": last_blocks}
    torch.manual_seed(0)
    model = build(name, options, use_lora=use_lora, freeze_backbone=freeze_backbone).train()
    depth = len(model.backbone.blocks)
    for _ in range(2):  # lora_B is zero at first, so lora_A's first gradient is too
        model.zero_grad()
        torch.manual_seed(0)
        (model(torch.randn(2, 3, 56, 56)) ** 2).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad / parameter.grad.norm().clamp(min=1e-8)
    got = {n for n, p in model.backbone.named_parameters() if p.grad is not None and p.grad.any()}
    pattern = re.compile(trains.format(depth - 2, depth - 1))
    wanted = {n for n, _ in model.backbone.named_parameters() if pattern.match(n)}
    assert got == wanted
    modes = {module.training for module in model.backbone.blocks[0].modules()}
    assert modes == {not freeze_backbone}


def build(name, backbone_options=None, **arguments):
    standard = {
        "backbone_size": None,
        "checkpoint_path": None,
        "lora_rank": 2,
        "lora_alpha": 4.0,
        "lora_dropout": 0.0,
        "lora_target_modules": None,
        "pretrained": False,
        "in_channels": 3,
    }
    return build_segmentation_model(
        lambda backbone: ViTSegmentationModel(backbone, SmallHead(backbone.num_features, 2)),
        backbone_name=name,
        backbone_options=backbone_options,
        **(standard | arguments),
    )


def test_the_rarer_options_of_a_model():
    options = {
        "patch_size": 8,
        "indices": [0, 1, 1, 2],
        "input_norm": {"mean": [0.5], "std": [0.25], "clamp": [0.0, 1.0]},
    }
    model = build("test_vit", options, use_lora=False, freeze_backbone=False).eval()
    assert model.backbone.patch_embed.patch_size == (8, 8)
    assert not any(p.requires_grad for p in model.backbone.blocks[3:].parameters())
    assert not any("input_norm" in name for name in model.state_dict())
    image = torch.rand(1, 3, 20, 20)
    model.input_norm, norm = None, model.input_norm
    expected = model((image - 0.5) / 0.25)
    model.input_norm = norm
    assert torch.equal(model(image), expected)
    assert torch.equal(model(image - 7), model(torch.zeros_like(image)))
    with pytest.raises(UserError, match=r"unknown backbone_options \['patchsize'\]"):
        build("test_vit", {"patchsize": 8}, use_lora=False, freeze_backbone=False)


def test_print_trainable_parameters_prints(model, capsys):
    model.enable_lora(rank=2)
    model.print_trainable_parameters(detailed=True)
    out = capsys.readouterr().out
    assert "backbone.blocks.0.attn.qkv.lora_A.default.weight: (2, 64)" in out
    assert "trainable: " in out.splitlines()[-1]
    model.disable_lora()


def test_float16_autocast_becomes_bfloat16_inside():
    """nnU-Net predicts under float16, in which DINOv3 is reported unstable."""
    model = build("test_vit", use_lora=False, freeze_backbone=False).eval()
    seen = []
    model.head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    image = torch.randn(1, 3, 32, 32)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert model(image).dtype == torch.float32
    model(image)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_freezing_wins_over_lora():
    model = build("test_vit", use_lora=True, freeze_backbone=True)
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_what_no_tap_needs_never_trains():
    taps = {"indices": [0, 1, 1, 2]}
    model = build("test_vit", taps, use_lora=True, freeze_backbone=False)
    trainable = {n.split(".")[1] for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert trainable == {"0", "1", "2"}
    model.freeze_backbone(4)
    trainable = {
        n.split(".")[1]
        for n, p in model.backbone.blocks.named_parameters("blocks")
        if p.requires_grad
    }
    assert trainable == {"2"}
    with pytest.raises(UserError, match="nothing behind it is run"):
        model.freeze_backbone(2)
    with pytest.raises(UserError, match="nothing behind it is run"):
        build("test_vit", taps | {"train_last_blocks": 2}, use_lora=False, freeze_backbone=True)


def test_auxiliary_outputs_are_scaled_after_the_crop():
    """A ramp over a padded 42 px, cropped to 40 and halved, is the ramp of the 40 px halved."""
    ramp = torch.arange(42.0).expand(1, 1, 42, 42)
    got = fit_to_image(ramp, (42, 42), (40, 40), 1 / 8)
    expected = torch.nn.functional.interpolate(ramp[..., :40, :40], (5, 5), mode="bilinear")
    torch.testing.assert_close(got, expected)


def test_the_model_needs_no_peft_without_lora():
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from vit_backbone import find_head\n"
        "find_head('linear')('test_vit', pretrained=False, use_lora=False)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_compiles_for_a_second_size():
    """Then with dynamic shapes, in which torch 2.15 cannot trace the modulus of a negative."""
    torch.compiler.reset()
    model = ViTSegmentationModel(FakeBackbone(8), SmallHead(8, 2))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for shape in ((1, 3, 32, 48), (2, 3, 33, 20)):
        image = torch.randn(shape)
        torch.testing.assert_close(compiled(image), model(image))
