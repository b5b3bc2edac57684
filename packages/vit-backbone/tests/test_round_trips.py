"""What the package builds and saves, it loads; what timm knows of others goes through the gate."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from vit_backbone import (
    MODEL_CONFIGS,
    WeightsError,
    create_backbone,
    disable_lora,
    enable_lora,
    get_vit_features,
    load_weights,
)

SIZES = [(family, size) for family, config in MODEL_CONFIGS.items() for size in config["sizes"]]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Every timm model two blocks deep and 96 wide, with its own patch size, tokens and class."""
    real = timm.create_model
    small = {"depth": 2, "embed_dim": 96, "num_heads": 1}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: real(name, **(small | given)))


def build(name, size=None, **options):
    torch.manual_seed(0)
    return create_backbone(name, size, pretrained=False, **options)[0].eval()


def assert_same_features(model, other):
    side = 3 * other.patch_embed.patch_size[0]
    image = torch.randn(1, other.patch_embed.proj.in_channels, side, 2 * side)
    for got, expected in zip(
        get_vit_features(model.eval(), image, [0, 1]),
        get_vit_features(other, image, [0, 1]),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def save(state, file):
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("family", "size"), SIZES, ids=str)
def test_every_family_and_size_is_loaded_back(family, size, suffix, tmp_path):
    original = build(family, size)
    file = save(original.state_dict(), tmp_path / f"saved{suffix}")
    model, _, _ = create_backbone(family, size, file)
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in original.state_dict().items()
    }
    image = torch.randn(1, 3, *original.patch_embed.img_size)
    torch.testing.assert_close(
        get_vit_features(model.eval(), image, [1]), get_vit_features(original, image, [1])
    )
    adapted = build(family, size)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(1)
    enable_lora(adapted)
    load_weights(adapted, file)
    assert_same_features(adapted, original)


@pytest.mark.parametrize("options", [{"in_chans": 1}, {"in_chans": 5}, {"patch_size": 8}], ids=str)
@pytest.mark.parametrize("family", ["dinov2", "dinov3", "flexivit_small", "test_vit"])
def test_other_channels_and_patches_are_loaded_back(family, options, tmp_path):
    original = build(family, "small", **options)
    file = save(original.state_dict(), tmp_path / "saved.pth")
    model, _, _ = create_backbone(family, "small", file, **options)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name]), name


def test_a_file_with_adapters_says_how_to_save_it(tmp_path):
    model = build("dinov2", "small")
    enable_lora(model)
    file = save(model.state_dict(), tmp_path / "adapted.pth")
    with pytest.raises(WeightsError, match=r"holds LoRA adapters.*disable_lora"):
        create_backbone("dinov2", "small", file)
    with pytest.raises(WeightsError, match=r"holds LoRA adapters.*disable_lora"):
        load_weights(model, file)
    disable_lora(model)
    merged = create_backbone("dinov2", "small", save(model.state_dict(), file))[0]
    assert torch.equal(merged.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)


def test_biases_that_are_zero_fit_a_model_without(tmp_path):
    state = build("vit_small_patch16_dinov3_qkvb").state_dict()
    plain = build("vit_small_patch16_dinov3")
    load_weights(plain, save(state, tmp_path / "zero.pth"))
    state["blocks.1.attn.v_bias"][3] = 1
    with pytest.raises(WeightsError, match="_qkvb"):
        load_weights(plain, save(state, tmp_path / "nonzero.pth"))


@pytest.mark.parametrize("how", ["apart", "joined"])
def test_q_k_and_v_of_a_model_that_keeps_them_apart(how, tmp_path):
    """EVA02's base and large models; k has no bias there, and a joined one holds zeros for it."""
    original = build("eva02_base_patch14_224")
    state = original.state_dict()
    if how == "joined":
        for stem in ("blocks.0.attn.", "blocks.1.attn."):
            weights = [state.pop(f"{stem}{part}_proj.weight") for part in "qkv"]
            q, v = (state.pop(f"{stem}{part}_proj.bias") for part in "qv")
            state[f"{stem}qkv.weight"] = torch.cat(weights)
            state[f"{stem}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    file = save(state, tmp_path / "saved.pth")
    model = create_backbone("eva02_base_patch14_224", None, file)[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name]), name
    if how == "joined":
        state["blocks.1.attn.qkv.bias"][100] = 1
        with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.qkv\.bias has a bias of k"):
            load_weights(model, save(state, tmp_path / "nonzero.pth"))


def test_the_tables_of_eva02s_rope_are_no_weights(tmp_path):
    """Original files hold them as buffers; what timm leaves out besides is counted."""
    state = build("eva02_tiny_patch14_224").state_dict()
    state |= {"rope.freqs_cos": torch.ones(4), "blocks.0.attn.rope.freqs_sin": torch.ones(4)}
    model = create_backbone("eva02_tiny_patch14_224", pretrained=False)[0]
    report = load_weights(model, save(state, tmp_path / "tables.pth"))
    assert "2 others left out" in report.notes
    tower = {f"visual.{name}": tensor for name, tensor in state.items()}
    tower["visual.blocks.1.attn.rope_q"] = torch.ones(4)
    report = load_weights(model, save(tower, tmp_path / "tower.pth"))
    assert "1 that timm leaves out" in report.notes


CLIP_NAMES = (
    ("patch_embed.proj.", "conv1."), ("norm_pre.", "ln_pre."),
    ("blocks.", "transformer.resblocks."), (".norm1.", ".ln_1."), (".norm2.", ".ln_2."),
    (".attn.qkv.", ".attn.in_proj_"), (".attn.proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.c_fc."), (".mlp.fc2.", ".mlp.c_proj."),
)  # fmt: skip


def clip_tower(state):
    """Rename timm's CLIP tower as OpenAI's and OpenCLIP's files name it, with the text beside."""
    named = {}
    for name, tensor in state.items():
        name = f"ln_post.{name[5:]}" if name.startswith("norm.") else name
        for ours, theirs in CLIP_NAMES:
            name = name.replace(ours, theirs)
        named[f"visual.{name}"] = tensor
    named["visual.class_embedding"] = named.pop("visual.cls_token")[0, 0]
    named["visual.positional_embedding"] = named.pop("visual.pos_embed")[0]
    text = {"token_embedding.weight": torch.zeros(9, 8), "ln_final.weight": torch.zeros(8)}
    text |= {"positional_embedding": torch.zeros(7, 8), "logit_scale": torch.tensor(1.0)}
    text |= {"transformer.resblocks.0.ln_1.weight": torch.zeros(8)}
    return named | text | {"visual.proj": torch.zeros(64, 32)}


def open_clip_trunk(state):
    trunk = {f"visual.trunk.{name}": tensor for name, tensor in state.items()}
    return trunk | {"visual.head.proj.weight": torch.zeros(2, 2), "logit_scale": torch.tensor(1.0)}


@pytest.mark.parametrize("rename", [clip_tower, open_clip_trunk])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_image_tower_of_a_clip_file(rename, prefix, tmp_path, caplog):
    original = build("vit_base_patch32_clip_224")
    state = {prefix + name: tensor for name, tensor in rename(original.state_dict()).items()}
    file = save(state, tmp_path / "clip.pth")
    with caplog.at_level("INFO"):
        model, _, _ = create_backbone("vit_base_patch32_clip_224", None, file)
    assert_same_features(model, original)
    assert "others left out" in caplog.text
    assert ("quickgelu" in caplog.text) == (rename is clip_tower)


@pytest.mark.parametrize("rename", [clip_tower, open_clip_trunk])
def test_patches_of_a_clip_file_are_resampled_on_purpose_only(rename, tmp_path, caplog):
    """timm's own converter resampled 14 to 16 without a word."""
    state = rename(build("vit_large_patch14_clip_224").state_dict())
    file = save(state, tmp_path / "clip.pth")
    with pytest.raises(WeightsError, match=r"differ in shape \(first patch_embed\.proj\.weight"):
        create_backbone("vit_base_patch16_clip_224", None, file)
    with caplog.at_level("INFO"):
        model = create_backbone("vit_large_patch14_clip_224", None, file, patch_size=16)[0]
    assert "patch embedding resampled from 14 to 16 px" in caplog.text
    assert model.patch_embed.proj.weight.shape[-1] == 16


def test_what_timm_converts_is_not_resampled_by_timm(tmp_path):
    """AIMv2's names, which only timm's filter knows."""
    state = build("vit_small_patch14_dinov2").state_dict()
    for theirs, ours in (("preprocessor.patchifier", "patch_embed"), ("norm_1", "norm1")):
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    file = save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"differ in shape \(first patch_embed\.proj\.weight"):
        create_backbone("deit_small_patch16_224", None, file)


@pytest.mark.parametrize("first", [True, False])
def test_two_names_that_timm_makes_one_are_refused(first, tmp_path):
    state = build("vit_small_patch14_dinov2").state_dict()
    aimv2 = {name.replace("patch_embed", "preprocessor.patchifier"): t for name, t in state.items()}
    other = {"blocks.0.norm_1.weight": torch.zeros(96)}
    file = save(other | aimv2 if first else aimv2 | other, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"two tensors that are blocks\.0\.norm1\.weight"):
        create_backbone("vit_small_patch14_dinov2", None, file)


def test_a_tower_with_a_pooling_head_fits_a_backbone_without(tmp_path):
    original = build("test_vit")
    pooling = {"attn_pool.latent": torch.zeros(1, 1, 64), "attn_pool.q.weight": torch.zeros(64, 64)}
    file = save(original.state_dict() | pooling, tmp_path / "siglip.pth")
    assert_same_features(create_backbone("test_vit", None, file)[0], original)
