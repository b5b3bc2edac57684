"""Off its native grid a position embedding is resampled as the model's authors did."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    create_backbone,
    export_onnx,
    export_program,
    fit_to_checkpoint,
    get_vit_features,
    load_weights,
)
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.vits.pos_embed import resample_position_embedding
from vit_backbone.weights.files import read_checkpoint

NATIVE = 7
SIDES = [(5, 5), (3, 11), (8, 8), (7, 9), (1, 2), (7, 7)]


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Every timm model two blocks deep and 96 wide."""
    real = timm.create_model
    small = {"depth": 2, "embed_dim": 96, "num_heads": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **given: real(name, **(small | given)))
        yield


def lively(model):
    """Large position embeddings and weights, so that features tell the resamplings apart."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 1.0 if "position" in name else 0.1
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * noise)
            if "lambda1" in name:
                parameter.fill_(1.0)
    return model.eval()


def meta_dinov2(self, embeddings, height, width):
    """DINOv2's own formula, for transformers' model: no antialiasing, a scale with an offset."""
    prefix, patches = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
    side = math.isqrt(patches.shape[1])
    grid = height // self.config.patch_size, width // self.config.patch_size
    if grid == (side, side):
        return self.position_embeddings
    patches = F.interpolate(
        patches.unflatten(1, (side, side)).permute(0, 3, 1, 2),
        scale_factor=[(length + 0.1) / side for length in grid],
        mode="bicubic",
    )
    assert patches.shape[-2:] == grid
    return torch.cat([prefix, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def hugging_face(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        patch_size=14,
        image_size=14 * NATIVE,
    )
    model = lively(getattr(transformers, f"{kind}Model")(config))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    prefix = 1 + getattr(config, "num_register_tokens", 0)

    def features(image):
        grid = [side // 14 for side in image.shape[-2:]]
        with torch.no_grad():
            tokens = model(image).last_hidden_state[:, prefix:]
        return tokens.transpose(1, 2).unflatten(2, grid)

    return model, features, tmp_path / "weights.pth"


def image_of(grid, batch=1):
    side = [14 * length for length in grid]
    return torch.randn(batch, 3, *side, generator=torch.Generator().manual_seed(1))


def last_map(model, image):
    with torch.no_grad():
        return get_vit_features(model, image, [1])[0]


def difference(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("grid", SIDES)
def test_dinov2_off_its_grid_is_metas(grid, tmp_path, monkeypatch):
    """And nearer to transformers', which leaves Meta's offset out, than timm's antialiasing is."""
    theirs, features, file = hugging_face("Dinov2", tmp_path)
    model = create_backbone("dinov2", "small", file)[0].eval()
    image = image_of(grid)
    got, plain = last_map(model, image), features(image)
    kind = type(theirs.embeddings)
    monkeypatch.setattr(kind, "interpolate_pos_encoding", meta_dinov2)
    assert difference(got, features(image)) < 1e-5
    old = create_backbone("vit_small_patch14_dinov2", pretrained=False, img_size=14 * NATIVE)[0]
    load_weights(old.eval(), file)
    antialiased = last_map(old, image)
    if grid == (NATIVE, NATIVE):
        assert difference(got, plain) < 1e-5
        assert difference(got, antialiased) < 1e-5
    elif max(grid) < NATIVE:
        assert difference(got, plain) < difference(antialiased, plain)


@pytest.mark.parametrize("grid", SIDES)
def test_dinov2_with_registers_is_antialiased(grid, tmp_path):
    _, features, file = hugging_face("Dinov2WithRegisters", tmp_path)
    model = create_backbone("dinov2", "small_reg4", file)[0].eval()
    image = image_of(grid)
    assert difference(last_map(model, image), features(image)) < 1e-5


def test_the_file_decides_and_plans_say_so(tmp_path):
    """What plans of 0.1.0 do not name stays timm's."""
    _, _, file = hugging_face("Dinov2", tmp_path)
    name, options = fit_to_checkpoint("dinov2", "small", read_checkpoint(file))
    assert options == {"img_size": 14 * NATIVE, "pos_embed_resampling": "dinov2"}
    loaded = create_backbone("dinov2", "small", file)[0].eval()
    rebuilt = create_backbone(name, pretrained=False, **options)[0].eval()
    rebuilt.load_state_dict(loaded.state_dict())
    image = image_of((4, 5))
    assert torch.equal(last_map(rebuilt, image), last_map(loaded, image))
    old = create_backbone(name, pretrained=False, img_size=14 * NATIVE)[0].eval()
    old.load_state_dict(loaded.state_dict())
    assert type(old) is timm.models.VisionTransformer
    as_timm = create_backbone("dinov2", "small", file, pos_embed_resampling="timm")[0].eval()
    assert torch.equal(last_map(as_timm, image), last_map(old, image))
    assert not torch.allclose(last_map(old, image), last_map(loaded, image))


def test_another_grid_of_the_model_is_filled_in_the_same_way(tmp_path):
    _, _, file = hugging_face("Dinov2", tmp_path)
    model = create_backbone("dinov2", "small", file, img_size=14 * 4)[0]
    whole = create_backbone("dinov2", "small", file)[0].pos_embed
    expected = resample_position_embedding(whole, (4, 4), (NATIVE, NATIVE), 1, "dinov2")
    assert torch.equal(model.pos_embed, expected)


def test_a_grid_that_no_file_names_is_said(tmp_path):
    """As many tokens lie on several grids, and a file does not say on which."""
    square = create_backbone("test_vit", pretrained=False)[0]
    torch.save(square.state_dict(), tmp_path / "weights.pth")
    assert "position" not in load_weights(square, tmp_path / "weights.pth").line()
    square.set_input_size((80, 320), (16, 16))
    line = load_weights(square, tmp_path / "weights.pth").line()
    assert "position embedding taken for 5x20" in line


@pytest.mark.parametrize("grid", SIDES)
def test_the_kernel_is_torchs_bicubic(grid):
    patches = torch.randn(1, 3, 6, 9, dtype=torch.float64)
    scale = [(new + 0.1) / old for new, old in zip(grid, (6, 9), strict=True)]
    expected = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    tokens = torch.cat([torch.ones(1, 2, 3).double(), patches.flatten(2).transpose(1, 2)], 1)
    got = resample_position_embedding(tokens, grid, (6, 9), 2, "dinov2")
    assert torch.equal(got[:, :2], tokens[:, :2])
    torch.testing.assert_close(
        got[:, 2:].transpose(1, 2).unflatten(2, grid), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("test_vit", "bilinear", "must be 'dinov2'"),
        ("vit_small_patch14_reg4_dinov2", "dinov2", "without registers"),
        ("vit_small_patch16_dinov3", "dinov2", "plain ViT"),
    ],
)
def test_impossible_resamplings_are_refused(name, how, message):
    with pytest.raises(UserError, match=message):
        create_backbone(name, pretrained=False, pos_embed_resampling=how)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    backbone = create_backbone(
        "vit_small_patch14_dinov2",
        pretrained=False,
        img_size=14 * 5,
        pos_embed_resampling="dinov2",
    )[0]
    with torch.no_grad():
        backbone.pos_embed.normal_()
    return ViTSegmentationModel(backbone, LinearHead(96, 2), [0, 1, 1, 1]).eval()


@pytest.mark.slow
def test_exported_it_answers_any_size(segmenter, tmp_path):
    """The native grid too: the trace decides by values, not by a branch."""
    import onnxruntime

    program = export_program(segmenter)
    export_onnx(segmenter, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for grid in ((5, 5), (9, 4), (3, 5)):
        image = image_of(grid, batch=2)
        expected = segmenter(image)
        torch.testing.assert_close(program.module()(image), expected, rtol=0, atol=1e-5)
        (got,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=0, atol=1e-4)


def test_compiled_copied_and_under_autocast_it_is_the_same(segmenter):
    import copy

    torch.compiler.reset()
    image = image_of((4, 6))
    expected = segmenter(image)
    compiled = torch.compile(segmenter, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(copy.deepcopy(segmenter)(image), expected)
    backbone = segmenter.backbone
    with torch.autocast("cpu", torch.bfloat16):
        position = resample_position_embedding(backbone.pos_embed, (4, 6), (5, 5), 1, "dinov2")
    assert position.dtype == torch.float32
    half = copy.deepcopy(segmenter).to(torch.bfloat16)
    assert half(image.bfloat16()).isfinite().all()
