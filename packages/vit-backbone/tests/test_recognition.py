"""What a file is taken for: only what its keys and shapes make certain, and nothing overwritten."""

import hashlib

import pytest
import timm
import torch

from vit_backbone import WeightsError, create_backbone, fit_to_checkpoint, load_weights
from vit_backbone.weights.files import read_checkpoint, sha256_of
from vit_backbone.weights.recognition import recognise


@pytest.fixture
def tiny(monkeypatch):
    """Every timm model two blocks deep and 64 wide, with its own patch size, tokens and class."""
    real = timm.create_model
    small = {"depth": 2, "embed_dim": 64, "num_heads": 1}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: real(name, **(small | given)))


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    model = create_backbone("test_vit", pretrained=False)[0]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def official_dinov3(width, depth=2):
    """The keys of Meta's DINOv3 files that the layout is told by, without biases of qkv."""
    blocks = {
        f"blocks.{i}.attn.qkv.weight": torch.zeros(3, width, device="meta") for i in range(depth)
    }
    patches = {"patch_embed.proj.weight": torch.zeros(width, 3, 16, 16, device="meta")}
    return {"storage_tokens": torch.zeros(1, 4, width), **patches, **blocks}


def test_dinov3_7b_is_not_meddinov3():
    """Neither has a bias of qkv; MedDINOv3 is a ViT-B, and only its norms want another epsilon."""
    giant = recognise(official_dinov3(4096, 40) | {"local_cls_norm.weight": torch.zeros(4096)})
    assert giant.layout == "DINOv3"
    assert "norm_eps" not in fit_to_checkpoint("dinov3", "7b", giant)[1]
    medical = recognise({"teacher": official_dinov3(768, 12)})
    assert medical.layout == "MedDINOv3"
    assert fit_to_checkpoint("dinov3", "base", medical)[1]["norm_eps"] == 1e-6


def test_what_ibot_and_mae_files_share_names_no_release(tensors, tmp_path):
    ibot = saved({"teacher": tensors | {"masked_embed": torch.zeros(1, 64)}}, tmp_path)
    assert read_checkpoint(ibot).layout == "iBOT"
    mae = saved({"model": tensors | {"decoder_embed.weight": torch.zeros(3, 3)}}, tmp_path)
    assert read_checkpoint(mae).layout == "MAE"
    vit = {f"encoder.layer.0.attention.attention.{part}.weight": torch.zeros(1) for part in "qk"}
    assert recognise(vit).layout == "unknown"  # ViT of transformers, which is no DINOv2
    assert (
        "it is"
        not in load_weights(
            create_backbone("test_vit", pretrained=False)[0], saved(tensors, tmp_path)
        ).line()
    )


@pytest.mark.parametrize(
    "container", ["teacher", "model", "state_dict", "model_ema", "state_dict_ema", "ema"]
)
def test_containers(container, tensors, tmp_path):
    content = {container: tensors, "student": {}, "optimizer": {"state": {}}}
    model = create_backbone("test_vit", None, saved(content, tmp_path))[0]
    assert torch.equal(model.norm.weight, tensors["norm.weight"])


def test_of_two_containers_the_report_says_which(tensors, tmp_path, caplog):
    averaged = {name: tensor + 1 for name, tensor in tensors.items()}
    content = {"teacher": {}, "state_dict": tensors, "state_dict_ema": averaged}
    with caplog.at_level("INFO"):
        model = create_backbone("test_vit", None, saved(content, tmp_path))[0]
    assert torch.equal(model.norm.bias, tensors["norm.bias"])
    assert "its state_dict, not its state_dict_ema" in caplog.text


def test_tensors_beside_their_average_are_taken(tensors, tmp_path, caplog):
    averaged = {name: tensor + 1 for name, tensor in tensors.items()}
    with caplog.at_level("INFO"):
        model = create_backbone("test_vit", None, saved(tensors | {"ema": averaged}, tmp_path))[0]
    assert torch.equal(model.norm.bias, tensors["norm.bias"])
    assert "its own tensors, not its ema" in caplog.text
    counted = {"model": tensors, "epoch": torch.tensor(3), "loss": torch.tensor(0.5)}
    model = create_backbone("test_vit", None, saved(counted, tmp_path))[0]
    assert torch.equal(model.norm.bias, tensors["norm.bias"])


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "backbone.",
        "module.backbone.",
        "_orig_mod.",
        "dinov2_with_registers.",
        "model.",
        "backbone.model.module._orig_mod.",
    ],
)
def test_prefixes(prefix, tensors, tmp_path):
    prefixed = {prefix + name: tensor for name, tensor in tensors.items()}
    model = create_backbone("test_vit", None, saved(prefixed, tmp_path))[0]
    assert torch.equal(model.norm.weight, tensors["norm.weight"])


def test_what_counts_beside_a_backbone_is_left_out(tensors, tmp_path, caplog):
    """torch's AveragedModel counts its updates in a tensor of its state."""
    averaged = {f"module.{name}": tensor for name, tensor in tensors.items()}
    averaged["n_averaged"] = torch.tensor(3)
    with caplog.at_level("INFO"):
        model = create_backbone("test_vit", None, saved(averaged, tmp_path))[0]
    assert torch.equal(model.norm.weight, tensors["norm.weight"])
    assert "1 others left out" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "backbone."])
@pytest.mark.parametrize("first", [True, False])
def test_a_tensor_beside_the_backbone_overwrites_none_inside(prefix, first, tensors, tmp_path):
    inside = {prefix + name: tensor for name, tensor in tensors.items()}
    beside = {"norm.weight": torch.zeros(64)}
    content = beside | inside if first else inside | beside
    with pytest.raises(WeightsError, match=rf"both .*\b{prefix}norm\.weight"):
        create_backbone("test_vit", None, saved(content, tmp_path))


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("vit_small_patch16_dinov3", {"blocks.0.gamma_1": "blocks.0.ls1.gamma"}),
        ("vit_small_patch14_reg4_dinov2", {"reg_token": "register_tokens"}),
        ("vit_small_plus_patch16_dinov3", {"blocks.0.mlp.fc1_g.weight": "blocks.0.mlp.w1.weight"}),
        ("vit_small_patch14_dinov2", {"blocks.0.attn.qkv.weight": "blocks.0.attn.q_proj.weight"}),
        ("vit_small_patch14_dinov2", {"blocks.0.norm1.bias": "blocks.0.0.norm1.bias"}),
    ],
)
def test_two_names_of_one_tensor_are_refused(name, others, tiny, tmp_path):
    state = create_backbone(name, pretrained=False)[0].state_dict()
    for known, other in others.items():
        state[other] = torch.zeros_like(state[known])
    if "dinov2" in name:
        state["mask_token"] = torch.zeros(1, 64)
    with pytest.raises(WeightsError, match=f"both.*{next(iter(others))}"):
        create_backbone(name, None, saved(state, tmp_path))


@pytest.mark.parametrize("factor", [1.0, 1.001, 50.0, 0.9])
def test_rope_periods_of_another_model_are_refused(factor, tiny, tmp_path):
    model = create_backbone("vit_small_patch16_dinov3", pretrained=False)[0]
    periods = model.rope.periods.bfloat16() * factor
    for name, value in (("rope_embed.periods", periods), ("rope_embeddings.inv_freq", 1 / periods)):
        file = saved(model.state_dict() | {name: value}, tmp_path)
        if factor in (1.0, 1.001):
            load_weights(model, file)
        else:
            with pytest.raises(WeightsError, match="RoPE periods"):
                load_weights(model, file)


def test_rope_periods_are_refused_where_there_is_no_rope(tensors, tmp_path):
    file = saved(tensors | {"rope_embed.periods": torch.ones(16)}, tmp_path)
    with pytest.raises(WeightsError, match="RoPE periods"):
        create_backbone("test_vit", None, file)


JUNK_PERIODS = {
    "meta": lambda periods: periods.to("meta"),
    "sparse": lambda periods: periods.to_sparse(),
    "nan": lambda periods: periods * torch.nan,
    "complex": lambda periods: periods.to(torch.complex64),
    "scalar": lambda periods: periods[0],
    "empty": lambda periods: periods[:0],
    "column": lambda periods: periods[:, None],
}


@pytest.mark.filterwarnings("ignore")  # torch itself warns of sparse tensors
@pytest.mark.parametrize("name", ["rope_embed.periods", "rope_embeddings.inv_freq"])
@pytest.mark.parametrize("case", JUNK_PERIODS)
def test_rope_periods_that_are_no_numbers_are_one_line(case, name, tiny, tmp_path):
    model = create_backbone("vit_small_patch16_dinov3", pretrained=False)[0]
    junk = JUNK_PERIODS[case](model.rope.periods)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, saved(model.state_dict() | {name: junk}, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["query", "key", "value"])
def test_a_bias_that_is_lost_is_not_taken_for_zero(lost, tiny, tmp_path):
    """Only a k that has no bias in any block is a model's own way."""
    state = create_backbone("vit_small_patch14_dinov2", pretrained=False)[0].state_dict()
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = state.pop(f"blocks.{i}.attn.qkv.{kind}").chunk(3)
            for part, value in zip(("query", "key", "value"), parts, strict=True):
                state[f"blocks.{i}.attn.{part[0]}_proj.{kind}"] = value.contiguous()
    create_backbone("dinov2", "small", saved(state, tmp_path))
    del state[f"blocks.1.attn.{lost[0]}_proj.bias"]
    with pytest.raises(WeightsError, match=r"1 are missing \(first blocks\.1\.attn\.qkv\.bias"):
        create_backbone("dinov2", "small", saved(state, tmp_path))


def test_the_grid_behind_two_tokens_is_read_off_the_file(tmp_path):
    distilled = create_backbone("deit_tiny_distilled_patch16_224", pretrained=False, img_size=96)[0]
    file = saved(distilled.state_dict(), tmp_path)
    loaded = create_backbone("deit_tiny_distilled_patch16_224", None, file)[0]
    assert loaded.patch_embed.grid_size == (6, 6)
    assert torch.equal(loaded.pos_embed, distilled.pos_embed)


@pytest.mark.parametrize("beside", ["none", "decoder_embed.weight", "masked_embed"])
@pytest.mark.parametrize("spelling", ["ls{}.gamma", "gamma_{}"])
def test_layer_scale_is_read_off_any_file(spelling, beside, tensors, tmp_path):
    """UNI and its like: a plain ViT with LayerScale, for which timm has no name."""
    tensors |= {} if beside == "none" else {beside: torch.zeros(1, 64)}
    for i in range(6):
        for j in (1, 2):
            tensors[f"blocks.{i}.{spelling.format(j)}"] = torch.full((64,), 0.5)
    file = saved(tensors, tmp_path)
    model, _, name = create_backbone("test_vit", None, file)
    assert model.blocks[3].ls2.gamma[0] == 0.5
    name, options = fit_to_checkpoint("test_vit", None, read_checkpoint(str(file)))
    assert options["layer_scale"] is True
    assert sha256_of(str(file)) == hashlib.sha256(file.read_bytes()).hexdigest()
    rebuilt = create_backbone(name, pretrained=False, **options)[0]
    rebuilt.load_state_dict(model.state_dict())


def test_layer_scale_of_dino_models_is_timms_own(tiny, tmp_path):
    for family in ("dinov2", "dinov3"):
        file = saved(create_backbone(family, "small", pretrained=False)[0].state_dict(), tmp_path)
        assert "layer_scale" not in fit_to_checkpoint(family, "small", read_checkpoint(file))[1]
