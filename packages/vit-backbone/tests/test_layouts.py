"""Every layout of the zoo: loads completely, refuses a part, and equals its own implementation.

Hugging Face's models are built at full depth with random weights and exported in their own layout;
the other layouts are timm's models renamed as their releases name them. The properties that the
oracle test records are the table of README.md (`pytest --junitxml`).
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_patch_embed

from vit_backbone import WeightsError, create_backbone, get_vit_features
from vit_backbone.weights.layouts import recognise

SHARED = Path(__file__).parents[4] / "shared"


def randomized(model):
    """Give every parameter a random value that keeps features lively (LayerScale too)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.02 if parameter.ndim > 1 else 0.1
            noise = scale * torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if re.search(r"norm.*weight$|gamma|lambda1", name) else 0.0
            parameter.copy_(noise + centre)
    return model.eval()


def timm_state(name, size=None, **options):
    model = randomized(create_backbone(name, size, pretrained=False, **options)[0])
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def rename(state, *pairs):
    for pattern, replacement in pairs:
        state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    return state


def timm_features(model):
    return lambda image: get_vit_features(model, image)[-1]


def hugging_face(kind, **config):
    transformers = pytest.importorskip("transformers")
    model = randomized(
        getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))
    )
    registers = config.get("num_register_tokens", 0)

    def features(image):
        tokens = model(image).last_hidden_state[:, 1 + registers :]
        height, width = (side // config["patch_size"] for side in image.shape[-2:])
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    return {k: v.clone().contiguous() for k, v in model.state_dict().items()}, features


PERIODS = (100 ** (torch.arange(16) / 16)).bfloat16()  # of DINOv3's RoPE, as its files hold them
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}


# Each case: what the file holds, the features of its own implementation, the backbone to name,
# and the image side. The names say what a user of that file would write.
def retfound_mae():
    model, state = timm_state("retfound", "large")
    state |= {
        "mask_token": torch.zeros(1, 1, 512),
        "decoder_embed.weight": torch.zeros(512, 1024),
        "decoder_blocks.0.norm1.weight": torch.zeros(512),
    }
    arguments = argparse.Namespace(lr=1e-3, output_dir="out")
    content = {"model": state, "optimizer": {}, "epoch": 799, "scaler": {}, "args": arguments}
    return content, timm_features(model), ("retfound", None), 224


def retfound_fine_tuned():
    model, state = timm_state("retfound", "large")
    state = rename(state, (r"^norm\.", "fc_norm."))
    state |= {"head.weight": torch.zeros(5, 1024), "head.bias": torch.zeros(5)}
    return {"model": state, "epoch": np.float64(3)}, timm_features(model), ("retfound", None), 224


def retfound_dinov2():
    model, state = timm_state("dinov2", "large", img_size=224)
    state = rename(state, (r"^", "backbone."))
    state |= {
        "backbone.mask_token": torch.zeros(1, 1024),
        "dino_head.last_layer.weight": torch.zeros(3, 3),
        "ibot_head.mlp.0.weight": torch.zeros(3, 3),
    }
    return {"teacher": state}, timm_features(model), ("retfound", None), 224


def visionfm():
    model, state = timm_state("visionfm", "base")
    state = rename(state, (r"^", "module.backbone."))
    state |= {
        "module.backbone.masked_embed": torch.zeros(1, 768),
        "module.head.mlp.0.weight": torch.zeros(3, 3),
    }
    content = {"student": {"module.backbone.norm.bias": torch.zeros(1)}, "teacher": state}
    return content, timm_features(model), ("visionfm", None), 224


def dinov2_official():
    model, state = timm_state("dinov2", "small")
    return (
        state | {"mask_token": torch.zeros(1, 384)},
        timm_features(model),
        ("dinov2", "small"),
        518,
    )


def dinov2_registers():
    model, state = timm_state("dinov2", "small_reg4")
    state = rename(state, ("^reg_token$", "register_tokens"))
    position = torch.randn(1, 1, 384)
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    state["cls_token"] = state["cls_token"] - position
    state["mask_token"] = torch.zeros(1, 384)
    return state, timm_features(model), ("dinov2", "small_reg4"), 518


def dinov2_chunked():
    model, state = timm_state("dinov2", "small")
    state = {
        re.sub(r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 3}.{m[1]}.", key): value
        for key, value in state.items()
    }
    state = rename(state, (r"^", "backbone.")) | {"backbone.mask_token": torch.zeros(1, 384)}
    return {"teacher": state}, timm_features(model), ("dinov2", "small"), 518


def dinov2_hugging_face():
    config = {**SMALL, "image_size": 518, "patch_size": 14}
    state, features = hugging_face("Dinov2", **config)
    return state, features, ("dinov2", "small"), 518


def dinov2_hugging_face_older():
    state, features, name, side = dinov2_hugging_face()
    for new, old in (("q", "query"), ("k", "key"), ("v", "value")):
        state = rename(state, (rf"\.attention\.{new}_proj\.", rf".attention.attention.{old}."))
    state = rename(state, (r"\.attention\.o_proj\.", ".attention.output.dense."), ("^", "dinov2."))
    state |= {"classifier.weight": torch.zeros(2, 768)}
    return state, features, name, side


def dinov3_names(state, with_bias):
    state = rename(
        state, ("^reg_token$", "storage_tokens"), (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.fc1_g\.", ".w1."), (r"\.fc1_x\.", ".w2."),
    )  # fmt: skip
    if any(".w1." in key for key in state):
        state = rename(state, (r"\.mlp\.fc2\.", ".mlp.w3."))
    width = state["norm.weight"].numel()
    state |= {"mask_token": torch.zeros(1, width), "rope_embed.periods": PERIODS}
    for key in [key for key in state if key.endswith(".attn.qkv.weight")] if with_bias else []:
        stem = key.removesuffix("weight")
        q = state.pop(key.replace("qkv.weight", "q_bias"), torch.zeros(width))
        v = state.pop(key.replace("qkv.weight", "v_bias"), torch.zeros(width))
        state[f"{stem}bias"] = torch.cat([q, torch.zeros(width), v])
        state[f"{stem}bias_mask"] = torch.ones(3 * width)
    return state


def dinov3_official(size="small"):
    model, state = timm_state("dinov3", size)
    return dinov3_names(state, with_bias=True), timm_features(model), ("dinov3", size), 256


def dinov3_official_base():
    return dinov3_official("base")


def dinov3_official_small_plus():
    return dinov3_official("small_plus")


def dinov3_hugging_face(prefix="model.", gated=False):
    config = {**SMALL, "patch_size": 16, "num_register_tokens": 4, "use_gated_mlp": gated}
    config["intermediate_size"] = 1536
    state, features = hugging_face("DINOv3ViT", **config, hidden_act="silu" if gated else "gelu")
    state = rename(state, (r"^model\.", prefix))
    return state, features, ("dinov3", "small_plus" if gated else "small"), 256


def dinov3_hugging_face_older():
    return dinov3_hugging_face(prefix="")


def dinov3_hugging_face_gated():
    return dinov3_hugging_face(gated=True)


def meddinov3():
    model, state = timm_state("dinov3", "base", norm_eps=1e-6)
    state = rename(dinov3_names(state, with_bias=False), (r"^", "backbone."))
    state |= {"dino_head.mlp.0.weight": torch.zeros(1), "ibot_head.mlp.0.bias": torch.zeros(1)}
    return {"teacher": state}, timm_features(model), ("dinov3", "base"), 256


def timm_small():
    model, state = timm_state("dinov2", "small")
    return state, timm_features(model), ("dinov2", "small"), 518


CASES = {
    "RETFound MAE": (retfound_mae, "MAE", "timm"),
    "RETFound MAE, fine-tuned": (retfound_fine_tuned, "timm", "timm"),
    "RETFound DINOv2": (retfound_dinov2, "DINOv2 training checkpoint", "timm"),
    "VisionFM": (visionfm, "iBOT", "timm"),
    "DINOv2": (dinov2_official, "DINOv2", "timm"),
    "DINOv2, registers": (dinov2_registers, "DINOv2", "timm"),
    "DINOv2, chunked": (dinov2_chunked, "chunked DINOv2", "timm"),
    "DINOv2, Hugging Face": (dinov2_hugging_face, "Hugging Face DINOv2", "transformers"),
    "DINOv2, Hugging Face 4": (dinov2_hugging_face_older, "Hugging Face DINOv2", "transformers"),
    "DINOv3": (dinov3_official, "DINOv3", "timm"),
    "DINOv3, zero biases": (dinov3_official_base, "DINOv3", "timm"),
    "DINOv3, gated": (dinov3_official_small_plus, "DINOv3", "timm"),
    "DINOv3, Hugging Face": (dinov3_hugging_face, "Hugging Face DINOv3", "transformers"),
    "DINOv3, Hugging Face 4": (dinov3_hugging_face_older, "Hugging Face DINOv3", "transformers"),
    "DINOv3, HF gated": (dinov3_hugging_face_gated, "Hugging Face DINOv3", "transformers"),
    "MedDINOv3": (meddinov3, "MedDINOv3", "timm"),
    "timm": (timm_small, "timm", "timm"),
}


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


@pytest.fixture(scope="module", params=CASES)
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
    transformers = pytest.importorskip("transformers")
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
