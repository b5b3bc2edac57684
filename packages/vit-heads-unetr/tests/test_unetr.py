"""The UNETR head: the suite that every head passes, and the shape of its own parts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vit_backbone import UserError, ViTSegmentationModel, export_onnx
from vit_backbone.testing import FakeBackbone, HeadConformance, response_center
from vit_heads_unetr import (
    ConvBlock,
    DeconvBlock,
    UNETREncoder,
    UNETRHead,
    UNETRSegmentationModel,
    create_segmentation_model,
)
from vit_heads_unetr.options import LIGHT_CHANNELS

CHANNELS = (12, 8, 6, 4, 4)


class TestUNETRHead(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS)

    def make_deep_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, auxiliary_outputs=True)

    def find_factory(self):
        return create_segmentation_model


def test_blocks_are_what_the_specification_names():
    kinds = [type(layer).__name__ for layer in DeconvBlock(4, 6)]
    assert kinds == ["ConvTranspose2d", "Conv2d", "GroupNorm", "LeakyReLU"]
    kinds = [type(layer).__name__ for layer in ConvBlock(4, 6)]
    assert kinds == ["Conv2d", "GroupNorm", "LeakyReLU"] * 2
    for block in (DeconvBlock(4, 6), ConvBlock(4, 6)):
        assert all(layer.bias is None for layer in block if isinstance(layer, torch.nn.Conv2d))


@pytest.mark.parametrize("taps", [0, 3, 5])
def test_another_number_of_taps_is_refused(taps):
    with pytest.raises(UserError, match=f"{taps} taps came, and the head takes 4"):
        UNETRHead(8, 2, CHANNELS)([torch.randn(1, 8, 4, 4)] * taps, torch.randn(1, 3, 64, 64))


def test_taps_of_several_sizes_are_refused():
    taps = [torch.randn(1, 8, side, side) for side in (8, 4, 4, 4)]
    with pytest.raises(UserError, match=r"taps of the sizes \[\(8, 8\), \(4, 4\)"):
        UNETRHead(8, 2, CHANNELS)(taps, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (6, 2), (5, 1)])
def test_groups_are_the_largest_of_8_4_2_1_that_divides(channels, groups):
    assert ConvBlock(3, channels)[1].num_groups == groups


def test_the_paths_have_their_sizes_and_widths():
    maps = UNETREncoder(10, CHANNELS)([torch.randn(1, 10, 2, 3)] * 4)
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 32, 48), (6, 16, 24), (8, 8, 12), (12, 4, 6)]


def test_the_default_head_has_the_specified_size():
    """9.2 M parameters for 384 channels and 3 classes: counted by hand from the block list."""
    head = UNETRHead(384, 3)
    c, depth = (512, 256, 128, 64, 32), (1, 2, 3, 4)
    expected = 0
    for width, blocks in zip(c[:4], depth, strict=True):
        for i in range(blocks):
            into = 384 if i == 0 else width
            expected += into * width * 4 + width + width * width * 9 + 2 * width
    for coarse, skip in ((512, 256), (256, 128), (128, 64)):
        expected += (coarse + skip) * skip * 9 + skip * skip * 9 + 4 * skip
    expected += 64 * 32 * 9 + 32 * 32 * 9 + 4 * 32 + 32 * 3 + 3
    assert sum(p.numel() for p in head.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_channels": (4, 4)}, "five positive widths"),
        ({"decoder_channels": (4, 4, 4, 4, 0)}, "five positive widths"),
        ({"decoder_channels": 64}, "decoder_channels 64: five positive widths"),
        ({"decoder_channels": "light"}, "decoder_channels 'light': five positive widths"),
        ({"decoder_channels": None}, "decoder_channels None: five positive widths"),
        ({"decoder_channels": [8.0] * 5}, "whole numbers"),
        ({"negative_slope": -1}, "at least 0"),
        ({"negative_slope": True}, "negative_slope True: it must be at least 0"),
        ({"negative_slope": None}, "negative_slope None: it must be at least 0"),
        ({"num_classes": 0}, "num_classes 0: a whole number of at least 1"),
        ({"embed_dim": 8.5}, "embed_dim 8.5: a whole number of at least 1"),
        ({"upsample": "nearest"}, "there is bilinear, deconv"),
        ({"norm": "batch"}, "there is group, instance, layer"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        UNETRHead(**{"embed_dim": 8, "num_classes": 2, **options})


# Position embedding and patch 14, the same resampled to 16, RoPE and 16, position embedding and 16.
BACKBONES = [
    ("vit_small_patch14_dinov2", {"img_size": 224}),
    ("vit_small_patch14_dinov2", {"img_size": 224, "patch_size": 16}),
    ("vit_small_patch16_dinov3", {}),
    ("test_vit", {}),
]


@pytest.mark.parametrize(("name", "options"), BACKBONES)
@pytest.mark.parametrize("size", [(256, 256), (250, 300), (97, 131)])
def test_output_lies_where_the_input_lies(name, options, size):
    """On real ViTs, far from the origin, where a zoom of 14 % shifts by most."""
    torch.manual_seed(0)
    model = create_segmentation_model(
        name,
        num_classes=3,
        pretrained=False,
        use_lora=False,
        backbone_options=options,
        decoder_channels=CHANNELS,
    ).eval()
    for y, x in ((size[0] - 24, size[1] - 24), (size[0] - 24, 24), (24, size[1] - 24)):
        center = response_center(model, size, (y, x))
        assert max(abs(center[0] - y), abs(center[1] - x)) < 10, (y, x, center)


@pytest.fixture(scope="module")
def model():
    return create_segmentation_model(
        "test_vit", num_classes=4, pretrained=False, in_channels=2, decoder_channels=CHANNELS
    )


def test_the_factory_builds_with_lora_by_default(model):
    assert isinstance(model, UNETRSegmentationModel)
    assert isinstance(model.head.decoder, torch.nn.Module)
    trainable = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert all(".lora_" in n or n.startswith("patch_embed.proj.") for n in trainable)


@pytest.mark.parametrize("size", [(64, 64), (50, 33), (1, 9)])
def test_any_size_in_the_same_size_out(model, size):
    assert model.eval()(torch.randn(1, 2, *size)).shape == (1, 4, *size)


def test_freezing_without_lora_trains_the_head_alone():
    model = create_segmentation_model(
        "test_vit", pretrained=False, use_lora=False, freeze_backbone=True
    )
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for p in model.head.parameters())


def test_an_unknown_option_is_warned_about():
    with pytest.warns(UserWarning, match="ignores unknown options.*'widht'"):
        create_segmentation_model("test_vit", pretrained=False, widht=3)


def test_the_model_takes_any_backbone():
    model = UNETRSegmentationModel(FakeBackbone(8, 14), 2, CHANNELS)
    assert isinstance(model, ViTSegmentationModel)
    assert model(torch.randn(1, 3, 30, 30)).shape == (1, 2, 30, 30)


def test_importing_the_factory_imports_no_torch():
    code = (
        "import sys; from vit_heads_unetr import create_segmentation_model; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_equal_those_of_an_independent_computation():
    """The mean and the slice that reference_unetr.py prints (numpy, from the specification)."""
    head = UNETRHead(6, 3, (16, 8, 8, 4, 4)).double().eval()
    norms = {id(m.weight) for m in head.modules() if isinstance(m, torch.nn.GroupNorm)}
    with torch.no_grad():
        for k, parameter in enumerate(head.parameters()):
            values = 0.1 * torch.sin(0.37 * torch.arange(parameter.numel()).double() + k)
            offset = 1.0 if id(parameter) in norms else 0.0
            parameter.copy_(values.reshape(parameter.shape) + offset)
        ramp = torch.linspace(-1, 1, 6 * 2 * 2, dtype=torch.double).reshape(1, 6, 2, 2)
        logits = head([ramp * (level + 1) for level in range(4)], torch.empty(0))
    assert logits.mean().item() == pytest.approx(0.022990271914134285, abs=1e-8)
    expected = [0.0401238, 0.0428472, 0.0333082, 0.0002249, -0.0033025, -0.0036579]
    assert logits[0, 1, 5, 3:9].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"image_skip": True, "norm": "instance"}, {"upsample": "deconv", "norm": "layer"}],
    ids=str,
)
class TestOptions(HeadConformance):
    @pytest.fixture(autouse=True)
    def take(self, options):
        self.options = options

    def make_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, **self.options)

    def make_deep_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, **self.options, auxiliary_outputs=True)


def test_the_image_skip_sees_one_pixel_and_the_default_does_not():
    image = torch.randn(1, 3, 32, 32)
    taps = [torch.randn(1, 8, 2, 2)] * 4
    other = image.clone()
    other[..., 9, 9] += 1
    for skip in (False, True):
        head = UNETRHead(8, 2, CHANNELS, image_skip=skip).eval()
        moved = (head(taps, image) - head(taps, other)).abs().amax((0, 1)) > 1e-3
        assert moved.any() == skip
        assert bool(moved[9, 9]) == skip


def test_the_image_skip_without_an_image_says_so():
    taps = [torch.randn(1, 8, 2, 2)] * 4
    with pytest.raises(UserError, match="no image came, and the head looks at its pixels"):
        UNETRHead(8, 2, CHANNELS, image_skip=True)(taps, None)


def test_the_light_preset_costs_under_8_gflop_at_256_px():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        image, taps = torch.randn(1, 3, 256, 256), [torch.randn(1, 384, 16, 16)] * 4
        head = UNETRHead(384, 3, LIGHT_CHANNELS)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(taps, image)
    assert counter.get_total_flops() < 8e9


@pytest.mark.slow
def test_the_readmes_lines_run_with_a_small_backbone(tmp_path, monkeypatch):
    """As they stand in README.md, but for the size of the backbone."""
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    names = {}
    for code in re.findall(r"```python\n(.*?)```", readme, re.S):
        exec(code.replace('"dinov3", "large"', '"test_vit"'), names)
    assert names["logits"].shape == (1, 4, 250, 300)
    assert Path("model.onnx").stat().st_size > 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_small_patch14_dinov2", {"image_skip": True}),
        ("vit_small_patch16_dinov3", {"upsample": "deconv", "norm": "layer"}),
    ],
)
def test_onnx_answers_other_batches_and_sizes_than_it_was_traced_with(name, options, tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    model = create_segmentation_model(
        name,
        num_classes=3,
        pretrained=False,
        auxiliary_outputs=True,
        decoder_channels=CHANNELS,
        **options,
    )
    # Two blocks are enough, and LoRA is to do something, or merging it would not show.
    model.backbone.blocks = model.backbone.blocks[:2]
    model.indices = [0, 0, 1, 1]
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".lora_" in key:
                parameter.normal_(std=0.5)
    model.head.deep_supervision = True
    export_onnx(model, tmp_path / "model.onnx")
    assert model.head.deep_supervision
    assert any(".lora_" in key for key in model.state_dict())
    model.eval().head.deep_supervision = False
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    patch = model.backbone.patch_embed.patch_size[0]
    for batch, rows, columns in ((1, 1, 2), (3, 4, 9), (1, 5, 5)):
        image = torch.randn(batch, 3, rows * patch, columns * patch)
        (got,) = session.run(["logits"], {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), model(image), rtol=0, atol=1e-4)
