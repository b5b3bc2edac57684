"""Models leave PyTorch as they are: merged, at any size, and verified."""

import subprocess
import sys

import pytest
import timm
import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch.torch_version import TorchVersion

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    build_segmentation_model,
    export_onnx,
    export_program,
)
from vit_backbone.export import _largest_difference
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import FakeBackbone
from vit_backbone.vits.rope import TraceableRope, make_rope_traceable

pytestmark = pytest.mark.slow

# Position embedding and patch 14, RoPE and patch 16, RoPE and separate biases.
BACKBONES = {
    "vit_small_patch14_dinov2": {"img_size": 70},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
}


def build(name="test_vit", options=None, **lora):
    """A model whose attention looks somewhere: at random weights positions would not matter."""
    torch.manual_seed(0)
    model = build_segmentation_model(
        lambda backbone: ViTSegmentationModel(backbone, LinearHead(backbone.num_features, 3)),
        backbone_name=name,
        backbone_size=None,
        checkpoint_path=None,
        freeze_backbone=False,
        use_lora=bool(lora),
        lora_rank=2,
        lora_alpha=4.0,
        lora_dropout=0.5,
        lora_target_modules=["qkv"],
        pretrained=False,
        in_channels=2,
        backbone_options={**(options or {}), **{k: v for k, v in lora.items() if v is not None}},
    )
    model.backbone.blocks = model.backbone.blocks[:2]
    model.indices = [0, 1, 1, 1]
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "qkv" in key and key.endswith("weight"):
                parameter.mul_(8).add_(torch.randn_like(parameter) / 20)
    return model.train()


def run(file, image):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("name", "options"), list(BACKBONES.items())[:2])
def test_onnx_answers_any_batch_and_size_in_whole_patches(name, options, tmp_path):
    model = build(name, options)
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()  # stack traces name folders
    model.eval()
    patch = model.backbone.patch_embed.patch_size[0]
    for batch, rows, columns in ((1, 1, 1), (3, 5, 5), (1, 9, 4), (2, 2, 11)):
        image = torch.randn(batch, 2, rows * patch, columns * patch)
        torch.testing.assert_close(
            run(tmp_path / "model.onnx", image), model(image), rtol=0, atol=1e-4
        )
    for rows, columns in ((5 * patch + 1, 5 * patch), (5 * patch, 4 * patch - 1)):
        with pytest.raises(Exception, match=f"must_be_multiples_of_{patch}_and_{patch}"):
            run(tmp_path / "model.onnx", torch.randn(1, 2, rows, columns))


@pytest.mark.parametrize(("name", "options"), BACKBONES.items())
def test_a_program_answers_any_batch_and_size_in_whole_patches(name, options):
    model = build(name, options)
    program = export_program(model)
    model.eval()
    patch = model.backbone.patch_embed.patch_size[0]
    for batch, rows, columns in ((1, 9, 4), (3, 4, 4)):
        image = torch.randn(batch, 2, rows * patch, columns * patch)
        torch.testing.assert_close(program.module()(image), model(image), rtol=0, atol=1e-5)
    # The grid that the position embedding was trained for, and sides that torch specialises.
    for rows, columns in ((5, 5), (1, 1), (2, 3)):
        image = torch.randn(2, 2, rows * patch, columns * patch)
        got = program.module(check_guards=False)(image)
        torch.testing.assert_close(got, model(image), rtol=0, atol=1e-5)


def test_a_program_of_a_backbone_that_timm_alone_has_built_answers_any_size_too():
    torch.manual_seed(0)
    name = "vit_small_patch16_dinov3"
    backbone = timm.create_model(name, num_classes=0, depth=2, dynamic_img_size=True)
    for block in backbone.blocks:  # random weights would hardly look at positions
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.2)
        torch.nn.init.ones_(block.gamma_1)
    model = ViTSegmentationModel(backbone, LinearHead(384, 2), [0, 1, 1, 1]).eval()
    program = export_program(model)
    for rows, columns in ((3, 4), (6, 6)):
        image = torch.randn(1, 3, rows * 16, columns * 16)
        torch.testing.assert_close(program.module()(image), model(image), rtol=0, atol=1e-5)
    assert type(backbone.rope) is RotaryEmbeddingDinoV3  # the model is left as it is


@pytest.mark.parametrize("normalize", ["separate", "max", "min"])
def test_the_traceable_rope_is_timms_bit_for_bit(normalize):
    options = {"dim": 64, "normalize_coords": normalize, "grid_offset": 0.25}
    theirs, ours = RotaryEmbeddingDinoV3(**options), TraceableRope(**options)
    for shape in ((1, 1), (5, 7), (37, 16)):
        assert torch.equal(ours.get_embed(shape), theirs.get_embed(shape))


def test_dinov3s_rope_asks_for_no_symbolic_maximum(monkeypatch):
    """The trap: up to torch 2.11 `torch.sym_max` breaks the graph, wanted or not."""
    rope = TraceableRope(dim=64)
    for name in ("sym_max", "sym_min"):
        monkeypatch.setattr(torch, name, None)
    assert rope.get_embed((5, 7)).shape == (35, 128)


def test_a_rope_that_shifts_coordinates_at_random_stays_timms():
    backbone = torch.nn.Module()
    backbone.rope = RotaryEmbeddingDinoV3(dim=64, shift_coords=0.1)
    make_rope_traceable(backbone)
    assert type(backbone.rope) is RotaryEmbeddingDinoV3


def test_one_size_may_have_broken_patches(tmp_path):
    model = build()
    export_onnx(model, tmp_path / "model.onnx", (33, 50))
    image = torch.randn(3, 2, 33, 50)
    torch.testing.assert_close(
        run(tmp_path / "model.onnx", image), model.eval()(image), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("variant", [None, "use_dora", "use_rslora"])
def test_lora_is_merged_in_a_copy(variant, tmp_path):
    model = build(**({variant: True} if variant else {"use_dora": None}))
    before = state_of(model)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    after = model.state_dict()
    assert list(before) == list(after)
    assert any(".lora_A." in name for name in after)
    assert all(torch.equal(before[name], after[name]) for name in after)
    import onnx

    names = [i.name for i in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert names
    assert not [name for name in names if "lora" in name]
    image = torch.randn(1, 2, 64, 32)
    got = run(tmp_path / "model.onnx", image)
    torch.testing.assert_close(got, model.eval()(image), rtol=0, atol=1e-4)


def test_a_file_that_differs_is_not_kept(tmp_path):
    """The trap: timm's RoPE keeps the example's size as a number, and ONNX says nothing."""

    class SomebodysRope(RotaryEmbeddingDinoV3):
        """Of a stranger's, which is left as it is."""

    model = build("vit_small_patch16_dinov3")
    model.backbone.rope.__class__ = SomebodysRope
    with pytest.raises(UserError, match=r"(differs from|does not run at) .* with size="):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2))
    with pytest.raises(UserError, match="no folder"):
        export_onnx(model, tmp_path / "missing" / "model.onnx")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path} is a folder"):
        export_onnx(model, "~")
    with pytest.raises(UserError, match="is a folder; name the file"):
        export_onnx(model, tmp_path)
    with pytest.raises(UserError, match="opset 11: it must be at least 18"):
        export_onnx(model, tmp_path / "model.onnx", opset=11)
    with pytest.raises(UserError, match="opset '18': it must be at least 18"):
        export_onnx(model, tmp_path / "model.onnx", opset="18")
    for size in ((0, 3), (5,), 224, (32.0, 32.0), (True, 32), "32"):
        with pytest.raises(UserError, match="a height and a width of at least 1"):
            export_program(model, size)
    with pytest.raises(UserError, match=r"give the ViTSegmentationModel.*_orig_mod"):
        export_program(torch.compile(model))
    monkeypatch.setattr(model.head, "forward", lambda taps, image: taps[0] if taps[0].sum() else 0)
    with pytest.raises(UserError, match="cannot trace LinearHead"):
        export_program(model)
    (tmp_path / "unknown.onnx").write_bytes(b"of an opset of later years")
    with pytest.raises(UserError, match=r"cannot load the ONNX file.*ask for an older opset"):
        _largest_difference(tmp_path / "unknown.onnx", model, None)
    (tmp_path / "unknown.onnx").unlink()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: uv pip install 'vit-backbone\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_autocast_has_no_say_in_a_file(tmp_path):
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert export_onnx(model, tmp_path / "model.onnx", size=(32, 32)) <= 1e-5


def test_a_torch_that_exports_nothing_is_named(monkeypatch, tmp_path):
    """2.6 would lay it to the head."""
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2))
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cu124"))
    with pytest.raises(UserError, match=r"needs torch 2\.8 or newer, here is 2\.6\.0"):
        export_onnx(model, tmp_path / "model.onnx")


def test_a_program_needs_no_onnx_and_no_peft():
    code = (
        "import sys; sys.modules['peft'] = sys.modules['onnx'] = None\n"
        "sys.modules['onnxruntime'] = sys.modules['onnxscript'] = None\n"
        "from vit_backbone import find_head, export_program\n"
        "export_program(find_head('linear')('test_vit', pretrained=False, use_lora=False))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_callers_autocast_defaults_and_random_state_do_not_matter():
    model, image = build().eval(), torch.randn(1, 2, 48, 48)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        program = export_program(model, (48, 48))
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_default_dtype(torch.float64)
    try:
        wide = export_program(model, (48, 48))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        elsewhere = export_program(model, (48, 48))
    for exported in (program, wide, elsewhere):
        torch.testing.assert_close(exported.module()(image), model(image), rtol=0, atol=1e-5)
