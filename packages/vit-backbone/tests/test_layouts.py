"""Every layout of the zoo: loads completely, refuses a part, and equals its own implementation.

What the files hold is made in `layout_cases`. The properties that the oracle test records are the
table of README.md (`pytest --junitxml`).
"""

import json
import re
from pathlib import Path

import pytest
import torch
from layout_cases import (
    CASES,
    SMALL,
    dinov2_hugging_face,
    rename,
    retfound_dinov2,
    timm_state,
    visionfm,
)
from safetensors.torch import load_file, save_file
from timm.layers import resample_patch_embed

from vit_backbone import WeightsError, create_backbone, get_vit_features
from vit_backbone.vits.families import likeliest_backbone
from vit_backbone.weights.checkpoint import Checkpoint
from vit_backbone.weights.recognition import recognise

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(scope="module", autouse=True)
def cheap_initialisation():
    """Draw random weights from what is fast to draw from: half the time of a ViT-L goes there."""

    def draw(tensor, *args, **kwargs):
        with torch.no_grad():
            return tensor.uniform_(-0.03, 0.03)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timm.layers.weight_init._trunc_normal_", draw)
        patch.setattr("torch.nn.init.trunc_normal_", draw)
        patch.setattr("torch.nn.init.kaiming_uniform_", draw)
        yield


@pytest.fixture
def real_weights():
    file = SHARED / "weights" / "vit_small_patch14_dinov2_layout.fp16.safetensors"
    if not file.is_file():
        pytest.skip("the weights of ../shared are not here")
    return file


def tensors_of(content):
    return content.get("teacher") or content.get("model") or content


def in_tiers():
    """All cases; RETFound's, which are ViT-L, are not in the quick tier."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow) if n.startswith("RETFound") else n for n in CASES]


@pytest.fixture(scope="module", params=in_tiers())
def case(request, tmp_path_factory):
    make, layout, oracle = CASES[request.param]
    content, features, (name, size), side = make()
    file = tmp_path_factory.mktemp("weights") / "anything.bin"
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file({key: value.contiguous() for key, value in content.items()}, file)
    else:
        torch.save(content, file)
    yield request.param, layout, oracle, content, features, name, size, side, file
    file.unlink()


def test_the_layout_is_recognised_from_the_keys(case):
    assert recognise(case[3]).layout == case[1]


def test_features_equal_those_of_the_file_s_own_implementation(case, record_property):
    label, _, oracle, _, features, name, size, side, file = case
    model = create_backbone(name, size, file)[0].eval()
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = features(image), get_vit_features(model, image)[-1]
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    record_property("layout", f"{label} | {oracle} | {difference:.1e}")
    assert difference <= 1e-4


def test_a_file_with_a_block_missing_is_refused(case, tmp_path):
    _, _, _, content, _, name, size, _, _ = case
    tensors = tensors_of(content)
    part = {
        key: v for key, v in tensors.items() if not re.search(r"(layer|blocks)\.(\d+\.)?7\.", key)
    }
    assert len(part) < len(tensors)
    torch.save({"teacher": part}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"are missing \(first blocks\.7\."):
        create_backbone(name, size, tmp_path / "part.pth")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("dinov3", "large"), "the file fits backbone 'visionfm' with size 'base'"),
        (("retfound", None), r"a ViT-B/16 \(12 blocks, 768 wide\) in iBOT layout"),
        (("dinov2", "base"), "differ in shape"),
    ],
)
def test_a_file_for_another_backbone_is_named(asked, message, tmp_path):
    content, _, _, _ = visionfm()
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        create_backbone(*asked, tmp_path / "weights.pth")


def file_of(width, depth, patch, **others):
    shape = (width, 3, patch, patch)
    blocks = {f"blocks.{n}.norm1.weight": torch.zeros(()).expand(width) for n in range(depth)}
    tensors = {"patch_embed.proj.weight": torch.zeros(()).expand(shape)} | blocks
    return Checkpoint("unknown", tensors | others, 0, None)


PLAIN = {"cls_token": torch.ones(1, 1, 768), "pos_embed": torch.ones(1, 197, 768)}
DINOV3 = {"cls_token": torch.ones(1, 1, 768), "reg_token": torch.ones(1, 4, 768)}


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (file_of(768, 12, 14), None),  # EVA's and CLIP's have patches of 14 px too
        (file_of(768, 12, 16, **PLAIN), "backbone 'vit_base_patch16_224'"),
        (file_of(768, 12, 16, cls_token=PLAIN["cls_token"]), None),
        (file_of(768, 12, 16, pos_embed=torch.ones(1, 196, 768)), None),
        (file_of(768, 12, 16, **PLAIN, **{"norm_pre.weight": torch.ones(768)}), None),
        (file_of(768, 12, 16, **PLAIN, **{"blocks.0.attn.norm.weight": torch.ones(768)}), None),
        (file_of(768, 12, 16, **PLAIN, **{"blocks.0.gamma_1": torch.ones(768)}), None),
        (file_of(768, 12, 16, **DINOV3), "backbone 'dinov3' with size 'base'"),
        (file_of(768, 12, 16, reg_token=torch.ones(1, 1, 768)), None),
        (
            file_of(384, 12, 16, **DINOV3, **{"blocks.0.mlp.fc1_g.bias": torch.ones(1536)}),
            "backbone 'dinov3' with size 'small_plus'",
        ),
        (file_of(1536, 40, 16), None),
        (file_of(4096, 40, 16), None),
        (
            file_of(768, 12, 14, **{"blocks.0.ls1.gamma": torch.ones(768)}),
            "backbone 'dinov2' with size 'base'",
        ),
    ],
    ids=str,
)
def test_what_a_file_is_taken_for_is_a_backbone_that_there_is(checkpoint, said):
    assert likeliest_backbone(checkpoint) == said


def test_the_backbone_that_was_refused_is_not_advised():
    checkpoint = file_of(768, 12, 14, **{"blocks.0.ls1.gamma": torch.ones(768)})
    assert likeliest_backbone(checkpoint, "vit_base_patch14_dinov2") is None
    assert (
        likeliest_backbone(file_of(768, 12, 16, **DINOV3), "vit_base_patch16_dinov3_qkvb") is None
    )


@pytest.mark.slow
def test_a_retfound_dinov2_file_builds_the_vit_that_it_needs(tmp_path):
    content, _, _, _ = retfound_dinov2()
    torch.save(content, tmp_path / "weights.pth")
    model, patch_size, timm_name = create_backbone("retfound", None, tmp_path / "weights.pth")
    assert (patch_size, timm_name) == (14, "vit_large_patch14_dinov2.lvd142m")
    assert model.patch_embed.grid_size == (16, 16)


def test_a_hugging_face_folder_loads_sharded_or_not(tmp_path):
    state, features, (name, size), side = dinov2_hugging_face()
    names = sorted(state)
    shards = {"a.safetensors": names[:50], "b.safetensors": names[50:]}
    for shard, keys in shards.items():
        save_file({key: state[key] for key in keys}, tmp_path / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    model, _, _ = create_backbone(name, size, tmp_path)
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        got, expected = get_vit_features(model.eval(), image)[-1], features(image)
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"holds none of model\.safetensors"):
        create_backbone(name, size, tmp_path / "empty")


def test_patch_14_weights_load_into_16_only_on_purpose(tmp_path):
    _, state = timm_state("dinov2", "small")
    save_file(state, tmp_path / "weights.safetensors")
    model, patch_size, _ = create_backbone(
        "dinov2", "small", tmp_path / "weights.safetensors", patch_size=16
    )
    assert patch_size == 16
    assert torch.equal(model.pos_embed, state["pos_embed"])
    expected = resample_patch_embed(state["patch_embed.proj.weight"], [16, 16])
    torch.testing.assert_close(model.patch_embed.proj.weight, expected)
    with pytest.raises(WeightsError, match=r"first patch_embed\.proj\.weight"):
        create_backbone("vit_small_patch16_224", None, tmp_path / "weights.safetensors")


def test_layer_scale_of_a_visionfm_file_is_kept(tmp_path):
    content, _, _, _ = visionfm()
    for i in range(12):
        for j in (1, 2):
            content["teacher"][f"module.backbone.blocks.{i}.gamma_{j}"] = torch.full((768,), 0.5)
    torch.save(content, tmp_path / "weights.pth")
    model, _, _ = create_backbone("visionfm", None, tmp_path / "weights.pth")
    assert model.blocks[3].ls2.gamma[0] == 0.5


def test_the_real_weights_equal_transformers(real_weights, tmp_path):
    """The DINOv2-layout weights of ../shared through our loader and through Dinov2Model."""
    transformers = pytest.importorskip("transformers", minversion="5.20")  # its layers' names
    ours = create_backbone("dinov2", "small", real_weights)[0].eval()
    config = transformers.Dinov2Config(**SMALL, image_size=518, patch_size=14)
    theirs = transformers.Dinov2Model(config).eval()
    state = {key: value.float() for key, value in load_file(real_weights).items()}
    fused = {key: value for key, value in state.items() if ".attn.qkv." in key}
    state = rename(
        {key: value for key, value in state.items() if key not in fused},
        (r"^blocks\.", "encoder.layer."), (r"^norm\.", "layernorm."),
        (r"\.attn\.proj\.", ".attention.o_proj."), (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
    )  # fmt: skip
    for key, value in fused.items():
        stem = rename(
            {key: 0}, (r"^blocks", "encoder.layer"), (r"\.attn\.qkv", ".attention.{}_proj")
        )
        stem = next(iter(stem))
        state |= {stem.format(part): v for part, v in zip("qkv", value.chunk(3), strict=True)}
    result = theirs.load_state_dict(state, strict=False)
    assert result.missing_keys == ["embeddings.mask_token"]
    assert not result.unexpected_keys
    image = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(image).last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, (37, 37))
        got = get_vit_features(ours, image)[-1]
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_huge_file_of_nothing_gets_one_line(tmp_path):
    for suffix in (".pth", ".safetensors"):
        with (tmp_path / f"huge{suffix}").open("wb") as stream:
            stream.truncate(200 << 30)
        with pytest.raises(WeightsError, match="cannot be read as a weight file"):
            create_backbone("dinov2", "small", tmp_path / f"huge{suffix}")
