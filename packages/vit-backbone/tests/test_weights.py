"""A backbone is filled completely or not at all."""

import argparse
import pickle
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch.optim.swa_utils import AveragedModel

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    WeightsError,
    adapter_state_dict,
    create_backbone,
    disable_lora,
    enable_lora,
    get_vit_features,
    load_weights,
)
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.weights.files import find_weights, sha256_of
from vit_backbone.weights.reading import allowed_in_files


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return create_backbone("test_vit", pretrained=False)[0].eval()


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tensors(original):
    return {name: tensor.clone() for name, tensor in original.state_dict().items()}


def fresh(**arguments):
    torch.manual_seed(1)
    return create_backbone("test_vit", pretrained=False, **arguments)[0].eval()


def assert_same_features(model, original, image):
    for ours, theirs in zip(
        get_vit_features(model, image), get_vit_features(original, image), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("container", [None, "model", "teacher", "state_dict"])
def test_torch_files_load_from_their_containers(container, original, tensors, image, tmp_path):
    content = (
        {container: tensors, "epoch": 3, "args": argparse.Namespace(lr=1)} if container else tensors
    )
    torch.save(content, tmp_path / "weights.pth")
    model, _, _ = create_backbone("test_vit", checkpoint_path=tmp_path / "weights.pth")
    assert_same_features(model.eval(), original, image)


def test_safetensors_and_pretraining_leftovers_load(original, tensors, image, tmp_path):
    leftovers = {"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)}
    save_file(tensors | leftovers, tmp_path / "weights.safetensors")
    model = fresh()
    report = load_weights(model, tmp_path / "weights.safetensors")
    assert_same_features(model, original, image)
    assert report.tensors == len(tensors)
    assert report.sha256 == sha256_of(tmp_path / "weights.safetensors")
    assert report.sha256 in report.line()


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_a_backbone_with_adapters_is_filled_under_them(variant, tensors, image, tmp_path):
    """A new adapter adds nothing; DoRA's magnitudes must be those of the filled weights."""
    for name in tensors:
        if name.endswith("qkv.weight"):
            tensors[name] *= 5
    save_file(tensors, tmp_path / "weights.safetensors")
    plain, model = fresh(), fresh()
    load_weights(plain, tmp_path / "weights.safetensors")
    enable_lora(model, **variant)
    load_weights(model, tmp_path / "weights.safetensors")
    for ours, theirs in zip(
        get_vit_features(model.eval(), image), get_vit_features(plain, image), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_chans", [1, 2, 4, 7])
def test_the_patch_embedding_is_adapted(in_chans, original, tensors, tmp_path):
    save_file(tensors, tmp_path / "weights.safetensors")
    model = fresh(in_chans=in_chans)
    report = load_weights(model, tmp_path / "weights.safetensors")
    ours, theirs = model.patch_embed.proj.weight, original.patch_embed.proj.weight
    if in_chans == 1:
        expected = theirs.sum(1, keepdim=True)
    else:
        expected = torch.stack([theirs[:, i % 3] for i in range(in_chans)], 1) * 3 / in_chans
    torch.testing.assert_close(ours, expected)
    assert f"from 3 to {in_chans} channels" in report.line()


def break_missing(tensors):
    del tensors["blocks.3.attn.qkv.weight"], tensors["norm.bias"]


def break_unexpected(tensors):
    tensors["blocks.77.attn.qkv.weight"] = torch.zeros(1)


def break_shape(tensors):
    tensors["norm.weight"] = torch.zeros(65)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_missing, r"2 are missing \(first blocks\.3\.attn\.qkv\.weight\)"),
        (break_unexpected, r"1 are unexpected \(first blocks\.77"),
        (break_shape, r"1 differ in shape \(first norm\.weight: file \(65,\), backbone \(64,\)"),
    ],
)
def test_a_partial_load_is_refused_and_changes_nothing(break_it, message, tensors, tmp_path):
    break_it(tensors)
    save_file(tensors, tmp_path / "weights.safetensors")
    model = fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nonzero_dinov3_biases_need_the_qkvb_model(tmp_path):
    base = create_backbone("vit_small_patch16_dinov3", pretrained=False)[0]
    official = official_dinov3(base.state_dict())
    torch.save(official, tmp_path / "zero.pth")
    load_weights(base, tmp_path / "zero.pth")
    official["blocks.0.attn.qkv.bias"][0] = 0.5
    torch.save(official, tmp_path / "nonzero.pth")
    with pytest.raises(WeightsError, match="_qkvb"):
        load_weights(base, tmp_path / "nonzero.pth")
    qkvb, _, name = create_backbone("dinov3", "small", tmp_path / "nonzero.pth")
    assert name == "vit_small_patch16_dinov3_qkvb.lvd1689m"
    assert qkvb.blocks[0].attn.q_bias[0] == 0.5
    plain, _, name = create_backbone("dinov3", "small", tmp_path / "zero.pth")
    assert name == "vit_small_patch16_dinov3.lvd1689m"
    assert plain.blocks[0].attn.q_bias is None


def official_dinov3(state):
    """Rename timm's DINOv3 tensors as Meta's files name them."""
    renamed = {
        name.replace("reg_token", "storage_tokens")
        .replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma"): tensor.clone()
        for name, tensor in state.items()
    }
    width = state["norm.weight"].numel()
    renamed |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(3 * width) for i in range(12)}
    periods = (100 ** (torch.arange(16) / 16)).bfloat16()
    return renamed | {"mask_token": torch.zeros(1, width), "rope_embed.periods": periods}


class RunsCode:
    def __reduce__(self):
        return (eval, ("open('run_by_the_pickle', 'w')",))


def write_hostile(file):
    file.write_bytes(pickle.dumps({"model": RunsCode()}, protocol=2))


def write_hostile_zip(file):
    torch.save({"model": RunsCode()}, file)


def write_truncated(file):
    torch.save({"a": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:500])


def write_list(file):
    torch.save([torch.zeros(1)], file)


def write_no_tensors(file):
    torch.save({"epoch": 3}, file)


def test_numpy_scalars_and_arguments_are_data(original, tensors, image, tmp_path):
    """What RETFound's and others' training checkpoints carry, under numpy's old name too."""
    beside = {"best": np.float64(0.5), "epoch": np.int64(3), "args": argparse.Namespace(lr=1e-3)}
    torch.save({"model": tensors, **beside}, tmp_path / "new.pth")
    assert_same_features(
        create_backbone("test_vit", None, tmp_path / "new.pth")[0].eval(), original, image
    )


def test_threads_do_not_take_from_each_other_what_files_may_hold():
    """torch's list of classes is the process's, and leaving its context empties it."""
    entered = threading.Event()

    def enter():
        with allowed_in_files([argparse.Namespace]):
            entered.set()

    other = threading.Thread(target=enter)
    with allowed_in_files([argparse.Namespace]):
        other.start()
        assert not entered.wait(0.1)
    other.join()
    assert entered.is_set()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "write",
    [
        write_hostile,
        write_hostile_zip,
        write_truncated,
        write_list,
        write_no_tensors,
        lambda f: f.write_bytes(b""),
    ],
)
def test_what_is_no_weight_file_gets_one_line(write, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"weights{suffix}"
    write(file)
    with pytest.raises(WeightsError) as caught:
        load_weights(fresh(), file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run_by_the_pickle").exists()


def test_the_users_home_is_found(tensors, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(tensors, tmp_path / "weights.safetensors")
    assert load_weights(fresh(), "~/weights.safetensors").tensors == len(tensors)


def test_a_backbone_without_memory_is_not_filled(tensors, tmp_path):
    """Copies into the meta device succeed and write nothing."""
    save_file(tensors, tmp_path / "weights.safetensors")
    with torch.device("meta"):
        empty = fresh()
        with pytest.raises(UserError, match=r"meta device.*to_empty"):
            create_backbone("test_vit", None, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"meta device.*to_empty"):
        load_weights(empty, tmp_path / "weights.safetensors")
    empty = empty.to_empty(device="cpu")
    load_weights(empty, tmp_path / "weights.safetensors")
    assert torch.equal(empty.norm.weight, tensors["norm.weight"])


def wrapped():
    """What holds a backbone and is none."""
    return {
        "compiled": torch.compile(fresh()),
        "averaged": AveragedModel(fresh()),
        "model": ViTSegmentationModel(fresh(), LinearHead(64, 2)),
    }


@pytest.mark.parametrize("kind", ["compiled", "averaged", "model"])
def test_the_backbone_in_a_wrapper_is_asked_for(kind, tensors, tmp_path):
    save_file(tensors, tmp_path / "weights.safetensors")
    module, said = wrapped()[kind], r"no backbone; give the one in it .*\.backbone.*\._orig_mod"
    with pytest.raises(UserError, match=said):
        load_weights(module, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=said):
        enable_lora(module)
    with pytest.raises(UserError, match=said):
        adapter_state_dict(module)
    disable_lora(module)  # without any, it does nothing
    enable_lora(next(part for part in module.modules() if isinstance(part, VisionTransformer)))
    if kind == "compiled":
        disable_lora(module)
    else:
        with pytest.raises(UserError, match=said):
            disable_lora(module)


def test_missing_weights_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"vit_large_patch16_dinov3\.lvd1689m.*checkpoint_path"):
        create_backbone("dinov3")
    with pytest.raises(WeightsError, match=r"on no model hub.*RETFound.*checkpoint_path"):
        create_backbone("retfound")
    with pytest.raises(WeightsError, match="is not there"):
        create_backbone("dinov3", checkpoint_path=tmp_path / "nowhere.pth")


def test_pretrained_false_looks_for_nothing():
    assert find_weights("retfound", "vit_large_patch16_224.mae", pretrained=False) is None


def test_the_hub_s_cached_copy_is_taken(tensors, original, image, tmp_path, monkeypatch):
    """The hub's own code path, off the network: a file where the hub's cache would hold it."""
    snapshot = tmp_path / "models--timm--test_vit.r160_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    save_file(tensors, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model, _, _ = create_backbone("test_vit")
    assert_same_features(model.eval(), original, image)
