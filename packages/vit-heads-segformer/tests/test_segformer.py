"""The SegFormer head: the suite that every head passes, and its own parts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vit_backbone import UserError, export_onnx
from vit_backbone.testing import FakeBackbone, HeadConformance, response_center
from vit_heads_segformer import (
    SegFormerHead,
    SegFormerSegmentationModel,
    create_segformer_model,
    create_segmentation_model,
)


class TestSegFormerHead(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return SegFormerHead([embed_dim] * 4, num_classes, hidden_size=16, dropout=0.0)

    def make_deep_head(self, embed_dim, num_classes):
        return SegFormerHead(
            [embed_dim] * 4, num_classes, hidden_size=16, dropout=0.0, auxiliary_outputs=True
        )

    def find_factory(self):
        return create_segmentation_model


@pytest.mark.parametrize(
    "options",
    [{"neck": "pyramid", "norm": "batch"}, {"neck": "pyramid", "upsample": "deconv"}],
    ids=str,
)
class TestOptions(HeadConformance):
    @pytest.fixture(autouse=True)
    def take(self, options):
        self.options = {"hidden_size": 16, "dropout": 0.0, **options}

    def make_head(self, embed_dim, num_classes):
        return SegFormerHead([embed_dim] * 4, num_classes, **self.options)

    def make_deep_head(self, embed_dim, num_classes):
        return SegFormerHead([embed_dim] * 4, num_classes, **self.options, auxiliary_outputs=True)


def test_the_paper_s_head_equals_transformers():
    """``neck: none`` and ``norm: batch`` against SegformerDecodeHead with the same weights."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    dims = [8, 6, 4, 10]
    config = transformers.SegformerConfig(
        hidden_sizes=dims, decoder_hidden_size=16, num_labels=3, num_encoder_blocks=4
    )
    theirs = SegformerDecodeHead(config)
    ours = SegFormerHead(dims, 3, hidden_size=16, norm="batch")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
        theirs.batch_norm.running_mean.normal_()
        theirs.batch_norm.running_var.uniform_(0.5, 2)
        for mine, mlp in zip(ours.projections, theirs.linear_projections, strict=True):
            mine.weight.copy_(mlp.proj.weight[..., None, None])
            mine.bias.copy_(mlp.proj.bias)
        # transformers concatenates the deepest level first, as the paper's code does.
        fuse = theirs.linear_fuse.weight.unflatten(1, (4, 16)).flip(1).flatten(1, 2)
        ours.fuse[0].weight.copy_(fuse)
    ours.fuse[1].load_state_dict(theirs.batch_norm.state_dict())
    ours.seg_layers[0].load_state_dict(theirs.classifier.state_dict())
    levels = [torch.randn(2, d, s, s + 3) for d, s in zip(dims, (16, 8, 4, 2), strict=True)]
    expected = theirs.eval()(levels)
    got = ours.eval()(levels, levels[0])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_neck_answers_at_4_times_the_grid_on_odd_grids_too():
    taps = [torch.randn(1, 8, 5, 3)] * 4
    assert SegFormerHead([8] * 4, 2, neck="pyramid")(taps, taps[0]).shape == (1, 2, 20, 12)
    head = SegFormerHead([8] * 4, 2, neck="pyramid", upsample="deconv")
    assert head(taps, taps[0]).shape == (1, 2, 80, 48)
    assert SegFormerHead([8] * 4, 2, upsample="deconv")(taps, taps[0]).shape == (1, 2, 80, 48)


def test_levels_may_differ_in_width_and_size():
    head = SegFormerHead([8, 6, 4, 2], 3, hidden_size=12)
    levels = [torch.randn(2, c, s, s) for c, s in ((8, 16), (6, 8), (4, 4), (2, 2))]
    assert head(levels, torch.empty(0)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("taps", [0, 3, 5])
@pytest.mark.parametrize("neck", ["none", "pyramid"])
def test_another_number_of_taps_is_refused(taps, neck):
    head = SegFormerHead([8] * 4, 2, 16, neck=neck)
    with pytest.raises(UserError, match=f"{taps} taps came, and the head takes 4"):
        head([torch.randn(1, 8, 4, 4)] * taps, torch.randn(1, 3, 64, 64))


def test_without_auxiliary_outputs_deep_supervision_gives_the_output_alone():
    head = SegFormerHead([8] * 4, 2, 16)
    head.deep_supervision = True
    outputs = head([torch.randn(1, 8, 4, 4)] * 4, torch.randn(1, 3, 64, 64))
    assert len(outputs) == len(head.deep_supervision_scales) == 1


def test_dropout_is_in_front_of_the_classifier_in_training_only():
    head = SegFormerHead([8] * 4, 3, hidden_size=16, dropout=0.5)
    taps = [torch.randn(1, 8, 4, 4)] * 4
    assert not torch.equal(head(taps, taps[0]), head(taps, taps[0]))
    head.eval()
    assert torch.equal(head(taps, taps[0]), head(taps, taps[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size 0: a whole number of at least 1"),
        ({"hidden_size": None}, "hidden_size None: a whole number of at least 1"),
        ({"hidden_size": 16.5}, "hidden_size 16.5: a whole number of at least 1"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"dropout": None}, "dropout None"),
        ({"num_classes": 0}, "num_classes 0: a whole number of at least 1"),
        ({"embed_dims": 8}, "embed_dims 8: a list of channels is expected"),
        ({"embed_dims": [8, 0]}, r"embed_dims \[8, 0\]: a list of channels"),
        ({"embed_dims": []}, r"embed_dims \[\]: at least one tap"),
        ({"embed_dims": [1] * 4, "neck": "pyramid"}, r"four taps of the same channels, 2 or more"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SegFormerHead(**{"embed_dims": [8] * 4, "num_classes": 2, **options})


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_head_with_a_neck_is_traced_by_torch_jit():
    head = SegFormerHead([8] * 4, 2, 16, neck="pyramid").eval()
    taps, image = [torch.randn(1, 8, 3, 4) for _ in range(4)], torch.randn(1, 3, 48, 64)
    traced = torch.jit.trace(head, (taps, image))
    torch.testing.assert_close(traced(taps, image), head(taps, image))


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
        hidden_size=32,
    ).eval()
    for y, x in ((size[0] - 24, size[1] - 24), (size[0] - 24, 24), (24, size[1] - 24)):
        center = response_center(model, size, (y, x))
        assert max(abs(center[0] - y), abs(center[1] - x)) < 10, (y, x, center)


@pytest.fixture(scope="module")
def model():
    return create_segmentation_model(
        "test_vit", num_classes=4, pretrained=False, in_channels=2, hidden_size=32
    )


def test_the_factory_builds_with_lora_by_default(model):
    assert create_segformer_model is create_segmentation_model
    assert isinstance(model, SegFormerSegmentationModel)
    trainable = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert all(".lora_" in n or n.startswith("patch_embed.proj.") for n in trainable)


@pytest.mark.parametrize("size", [(64, 64), (50, 33), (1, 9)])
def test_any_size_in_the_same_size_out(model, size):
    assert model.eval()(torch.randn(1, 2, *size)).shape == (1, 4, *size)


def test_an_unknown_option_is_warned_about():
    with pytest.warns(UserWarning, match="ignores unknown options.*'widht'"):
        create_segmentation_model("test_vit", pretrained=False, widht=3)


def test_the_model_takes_any_backbone():
    model = SegFormerSegmentationModel(FakeBackbone(8, 14), 2, hidden_size=16)
    assert model(torch.randn(1, 3, 30, 30)).shape == (1, 2, 30, 30)


def test_importing_the_factory_imports_no_torch():
    code = (
        "import sys; from vit_heads_segformer import create_segformer_model; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
        ("vit_small_patch14_dinov2", {"neck": "pyramid"}),
        ("vit_small_patch16_dinov3", {"upsample": "deconv", "norm": "batch"}),
    ],
)
def test_onnx_answers_other_batches_and_sizes_than_it_was_traced_with(name, options, tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    model = create_segmentation_model(
        name, num_classes=3, pretrained=False, auxiliary_outputs=True, hidden_size=16, **options
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
