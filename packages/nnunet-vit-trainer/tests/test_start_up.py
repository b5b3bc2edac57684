"""From the command's call to the filled network: the weights are read and hashed once.

All of it is real but the data, the steps and the validation.
"""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from a_start import CONFIG, DATASET, config, make_home, results_of, start, write
from safetensors.torch import save_file
from trained_results import DATASET_JSON, PLANS

from nnunet_vit_trainer.checkpoints import base_weights, content
from nnunet_vit_trainer.launch import fold, prepare
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
from vit_backbone import UserError, create_backbone
from vit_backbone.weights import files, once

# What a training imports beside nnU-Net may be these, and nothing of these.
NEEDED = {"timm", "peft", "torchvision", "transformers", "accelerate"}
NOT_NEEDED = {"monai", "onnx", "onnxruntime", "tensorboard"}
NOT_NEEDED_OF_OURS = {"doctor", "images", "pictures", "prediction", "report", "sharing", "demo"}


@pytest.mark.slow
def test_a_training_imports_what_it_needs_to_take_steps():
    """What only the end of a run needs waits for it: drawing and writing the report."""
    code = (
        "import sys, nnunet_vit_trainer.launch.run, nnunet_vit_trainer.training.trainer, "
        "vit_backbone.tuning.lora, vit_backbone.heads.linear; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()[-1].split()
    assert {name.partition(".")[0] for name in names} >= NEEDED
    assert not {name.partition(".")[0] for name in names} & NOT_NEEDED
    ours = {name.split(".")[1] for name in names if name.startswith("nnunet_vit_trainer.")}
    assert not ours & NOT_NEEDED_OF_OURS


@pytest.fixture
def home(tmp_path, monkeypatch):
    """nnU-Net's folders, a data set, and a file of weights."""
    make_home(tmp_path, monkeypatch)
    folder = tmp_path / "preprocessed" / DATASET
    write(folder / "nnUNetPlans.json", PLANS | {"dataset_name": DATASET})
    write(folder / "dataset.json", DATASET_JSON)
    for number in range(5):
        (folder / "nnUNetPlans_2d" / f"case{number}_seg.b2nd").touch()
    torch.manual_seed(0)
    state = create_backbone("test_vit", pretrained=False)[0].state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    return tmp_path


@pytest.fixture
def begun(monkeypatch):
    """The trainers that were begun; they take no step and validate nothing."""
    trainers = []

    def begin(trainer):
        if not trainer.was_initialized:
            trainer.begin()
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
        trainers.append(trainer)

    monkeypatch.setattr(fold, "_take_steps", begin)
    monkeypatch.setattr(nnUNetTrainer_vit, "perform_actual_validation", lambda *_: None)
    return trainers


@pytest.fixture
def counted(monkeypatch):
    """Return how often weight files were read and hashed since the last time."""
    reads, read = [], files.read_file
    monkeypatch.setattr(files, "read_file", lambda file: reads.append(file) or read(file))
    once._sha256_in.cache_clear()

    def counted():
        found = len(reads), once._sha256_in.cache_info().misses
        reads.clear()
        once._sha256_in.cache_clear()
        return found

    return counted


def trained_from(home, name="weights.safetensors", **sections):
    model = {"model_path": "linear", "backbone": "test_vit", "checkpoint_path": str(home / name)}
    return config(home, **{"model": model, **sections})


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "legacy.pth"])
def test_a_start_reads_and_hashes_its_weights_once(name, home, begun, counted):
    start(home, file=trained_from(home, name))
    assert counted() == (1, 1)
    expected = torch.load(home / "weights.pth")
    network = begun[0].network.backbone
    found = {n.replace(".base_layer", ""): t for n, t in network.state_dict().items()}
    for key, tensor in expected.items():
        if key != "patch_embed.proj.weight":  # of one channel
            assert torch.equal(found[key], tensor), key
    assert once._kept.get() is None


def test_a_link_to_the_weights_too(home, begun, counted):
    (home / "link.pth").symlink_to(home / "weights.pth")
    start(home, file=trained_from(home, "link.pth"))
    assert counted() == (1, 1)


def test_the_weights_are_hashed_while_the_network_is_tried(home, begun, monkeypatch):
    seen, build = [], prepare.try_to_build
    monkeypatch.setattr(
        prepare, "try_to_build", lambda *a, **k: seen.append(list(once._begun)) or build(*a, **k)
    )
    start(home, file=trained_from(home))
    assert [[Path(place[0]).name for place in state] for state in seen[0]] == [
        ["weights.safetensors"]
    ]
    assert not once._begun


def test_the_collector_is_paused_for_the_imports_alone(home, begun, monkeypatch):
    on = []
    for part, name in ((prepare, "try_to_build"), (fold, "_make_trainer")):
        real = getattr(part, name)
        monkeypatch.setattr(
            part, name, lambda *a, real=real, **k: on.append(gc.isenabled()) or real(*a, **k)
        )
    start(home, file=trained_from(home))
    assert on == [False, False, True]  # with the channels of the file the network is tried again
    assert gc.isenabled()


def test_going_on_from_an_adapter_checkpoint_too(home, begun, counted):
    file = trained_from(home, train={"checkpoint": "adapter"})
    start(home, file=file)
    (results_of(home) / "fold_0" / "checkpoint_final.pth").unlink()
    before = begun[0].network.state_dict()
    counted()
    start(home, file=file, continue_training=True)
    assert counted() == (1, 1)
    for name, tensor in begun[1].network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_whole_checkpoint_needs_no_weights(home, begun, counted):
    start(home, file=trained_from(home))
    counted()
    start(home, file=trained_from(home), continue_training=True)
    assert counted() == (0, 0)


def test_pretrained_weights_are_hashed_once_and_not_copied_whole(home, begun, counted, monkeypatch):
    start(home, file=trained_from(home))
    checkpoint = results_of(home) / "fold_0" / "checkpoint_final.pth"
    counted()
    loads, load = [], torch.load

    def watched(*given, **named):
        loads.append(named)
        return load(*given, **named)

    monkeypatch.setattr(content.torch, "load", watched)
    file = config(home, "other", model=CONFIG["model"])
    start(home, file=file, pretrained_weights=str(checkpoint))
    assert [named["mmap"] for named in loads] == [True, True]
    assert counted() == (0, 1)


def test_another_file_in_its_place_is_refused_before_it_trains(home, begun, monkeypatch):
    file, steps = home / "weights.safetensors", fold._take_steps

    def exchange(trainer):
        tensors = {n: t + 1 for n, t in torch.load(home / "weights.pth").items()}
        save_file(tensors, file)
        steps(trainer)

    monkeypatch.setattr(fold, "_take_steps", exchange)
    with pytest.raises(UserError, match=r"weights\.safetensors is not the file that this run was"):
        start(home, file=trained_from(home))
    assert not begun


def test_a_parameter_without_a_value_is_said_before_a_step(home, begun, monkeypatch):
    """Planted: one of the backbone's is not filled."""
    load_weights = base_weights.load_weights

    def load_all_but_one(backbone, *given):
        value = backbone.norm.bias.clone()
        report = load_weights(backbone, *given)
        backbone.norm.bias.copy_(value)
        return report

    monkeypatch.setattr(base_weights, "load_weights", torch.no_grad()(load_all_but_one))
    with pytest.raises(RuntimeError, match=r"backbone\.norm\.bias was built without values"):
        start(home, file=trained_from(home))
    assert not begun


def test_a_checkpoint_that_lacks_a_parameter_is_no_continuation(home, begun):
    """The network that it is loaded into has no values of its own."""
    start(home, file=trained_from(home))
    for file in (results_of(home) / "fold_0").glob("checkpoint_*.pth"):
        checkpoint = torch.load(file, weights_only=False)
        del checkpoint["network_weights"]["backbone.blocks.0.attn.qkv.lora_A.default.weight"]
        torch.save(checkpoint, file)
    with pytest.raises(UserError, match=r"does not fit the network: .*Missing key.*qkv\.lora_A"):
        start(home, file=trained_from(home), continue_training=True)
    assert len(begun) == 1


def test_two_starts_of_one_seed_are_equal_and_the_head_has_values(home, begun):
    for number in (1, 2):
        torch.rand(number)
        start(home, file=trained_from(home, train={"seed": 5}))
    one, two = (trainer.network.state_dict() for trainer in begun)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
        assert tensor.isfinite().all(), name
