"""The doctor: what it foresees, what it measures, and that it leaves nothing behind."""

import itertools
import shutil
import sys
from dataclasses import FrozenInstanceError
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn
from trained_results import call

from nnunet_vit_trainer.commands.doctor import doctor
from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.doctor import data as looks
from nnunet_vit_trainer.doctor import examine, print_page, probe
from nnunet_vit_trainer.doctor.costs import _say_whole_run, long_run, say_who_loads
from nnunet_vit_trainer.doctor.data import look_at_validations
from nnunet_vit_trainer.doctor.examine import Examination
from nnunet_vit_trainer.doctor.measure import seconds_of
from nnunet_vit_trainer.doctor.probe import trainable_parts
from nnunet_vit_trainer.doctor.problems import Problem, foreseeable, padded_size
from nnunet_vit_trainer.launch.request import Prepared, Request
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.results.costs import forward_flop
from nnunet_vit_trainer.training import from_plans
from nnunet_vit_trainer.training.shortage.fitting import (
    LARGEST_BATCH_TRIED,
    largest_that_fits,
    resized,
)
from vit_backbone import UserError, create_backbone


def plans(weights=None, patch_size=(32, 48), epochs=1000, **arguments):
    arguments = {"use_lora": False, "freeze_backbone": False} | arguments
    settings = {"patch_size": list(patch_size), "architecture": {"arch_kwargs": arguments}}
    train = {"num_epochs": epochs, "num_iterations_per_epoch": 250}
    return {"configurations": {"2d": settings}, "vit": {"weights": weights, "train": train}}


FEW_BLOCKS = {"freeze_backbone": True, "backbone_options": {"train_last_blocks": 2}}


@pytest.mark.parametrize(
    ("given", "key", "fatal"),
    [
        ({"use_lora": True}, "model.checkpoint_path", True),
        ({"freeze_backbone": True}, "model.checkpoint_path", True),
        (FEW_BLOCKS, "model.checkpoint_path", True),
        ({"patch_size": (40, 56)}, "train.patch_size", False),
        ({"epochs": 3}, "train.num_epochs", False),
    ],
)
def test_what_the_plans_give_away(given, key, fatal):
    (problem,) = foreseeable(plans(**given), (16, 16))
    assert (problem.key, problem.fatal) == (key, fatal)
    assert problem.line().startswith(f"{key}: ")
    assert ("all but its last 2 blocks" in problem.line()) == (given == FEW_BLOCKS)


@pytest.mark.parametrize(
    "given",
    [{}, {"use_lora": True, "weights": {"file": "a"}}, {"patch_size": (224, 224)}],
)
def test_nothing_is_said_about_what_is_right(given):
    assert foreseeable(plans(**given), (14, 14) if "patch_size" in given else (16, 16)) == []


def test_tiles_are_padded_to_whole_patches():
    assert padded_size([40, 56], (16, 16)) == (48, 64)
    assert padded_size([28, 1], (14, 14)) == (28, 14)


@pytest.mark.parametrize(
    ("limit", "planned", "largest"),
    [(100, 12, 96), (12, 12, 12), (11, 12, 6), (1, 12, 1), (0, 12, 0), (10**9, 3, 768)],
)
def test_the_largest_batch_is_found_by_doubling_or_halving(limit, planned, largest):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= limit

    assert largest_that_fits(fits, planned) == largest
    assert min(tried) >= 1
    assert max(tried) <= LARGEST_BATCH_TRIED


def test_what_a_start_refuses_the_doctor_refuses_and_asks_for_the_same(monkeypatch):
    asked = []

    def prepare(request):
        asked.append(request)
        raise UserError("holds results of another config")

    monkeypatch.setitem(examine.__globals__, "prepare", prepare)
    with pytest.raises(UserError, match="results of another config"):
        examine(42, "2d", "my.yaml", trainer_class_name="nnUNetTrainer_vit", device="cpu")
    (request,) = asked
    assert request == Request(42, "2d", "all", "my.yaml", "nnUNetTrainer_vit", device="cpu")
    assert request.deep_supervision
    with pytest.raises(FrozenInstanceError):
        request.fold = 0


@pytest.mark.parametrize(("cases", "fold"), [(4, "all"), (5, "0")])
def test_the_command_that_follows_names_a_fold_that_a_start_takes(
    cases, fold, tmp_path, monkeypatch, capsys
):
    prepared = Prepared("Dataset900_Tiny", {PLANS_KEY: {"data": {"cases": cases}}}, "results")
    monkeypatch.setitem(examine.__globals__, "prepare", lambda request: prepared)
    monkeypatch.setattr("nnunet_vit_trainer.doctor.probe.probe", lambda *of: None)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    call(doctor, 900, "2d", "--config", "segformer_tiny")
    assert f"nnUNetv2_train_vit 900 2d {fold} --config" in capsys.readouterr().out


def test_a_batch_is_repeated_and_cut():
    batch = {"data": torch.arange(3)[:, None], "target": [torch.arange(3), torch.arange(3)]}
    assert resized(batch, 7)["data"].flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [t.tolist() for t in resized(batch, 2)["target"]] == [[0, 1], [0, 1]]


def test_time_is_measured_until_the_budget_is_spent():
    runs = []
    assert seconds_of(lambda: runs.append(0), torch.device("cpu"), budget=1e9) > 0
    assert len(runs) == 5
    seconds_of(lambda: runs.append(0), torch.device("cpu"), budget=1e-12)
    assert len(runs) == 6


def test_loading_is_timed_over_many_batches(monkeypatch):
    """One in five takes long: the first alone, or the median, would tell none of it."""
    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])

    def loader(long):
        for number in itertools.count():
            now[0] += long if number % 5 == 4 else 0.01
            yield number

    batch, seconds = probe._load(loader(0.06))
    assert (batch, seconds) == (0, pytest.approx(0.02))
    assert now[0] == pytest.approx(0.4)
    assert probe._load(loader(60))[1] == pytest.approx(60.04 / 5)


@pytest.mark.parametrize(
    ("hours", "said"), [(0.001, "4 s"), (0.5, "30 min"), (100.1, "100 h 6 min")]
)
def test_the_whole_run_is_told_in_a_unit_that_fits(hours, said):
    train = {"num_epochs": 2, "num_iterations_per_epoch": 10, "num_val_iterations_per_epoch": 2}
    told = _say_whole_run(train, hours)
    assert told == f"{said}: 2 epochs of 10 steps and 2 of online validation"


def test_floating_point_operations_count_a_multiply_add_twice():
    assert forward_flop(nn.Linear(3, 5), torch.zeros(7, 3)) == 2 * 3 * 5 * 7
    attention = nn.functional.scaled_dot_product_attention

    class Attends(nn.Module):
        def forward(self, x):
            return attention(x, x, x)

    # Query times key, and attention times value.
    assert forward_flop(Attends(), torch.zeros(1, 2, 9, 4)) == 2 * (2 * 2 * 9 * 9 * 4)


def test_what_trains_is_summed_up_by_part():
    network = build_network(1, 3, head="linear", backbone_name="test_vit", use_lora=True)
    weights = dict(network.named_parameters())
    of = {
        part: [p for n, p in weights.items() if p.requires_grad and part in n]
        for part in ("lora", "patch_embed", "head")
    }
    groups = [
        {"params": of["head"] + of["lora"][:1], "lr": 0.0, "initial_lr": 1e-3, "weight_decay": 0.1},
        {"params": of["lora"][1:], "lr": 5e-4, "weight_decay": 0.1},
        {"params": of["patch_embed"], "lr": 1e-5, "weight_decay": 0.0},
    ]
    parts = {name: rest for name, *rest in trainable_parts(network, groups)}
    assert parts.keys() == {"head", "LoRA", "patch embedding"}
    assert parts["LoRA"][1:] == ["0.0005 to 0.001", "0.1"]
    assert parts["patch embedding"] == [f"{256 * 64 + 64:,}", "1e-05", "0"]


def test_the_page_fits_80_columns_and_drops_nothing():
    found = Examination("a title", problems=[Problem("train.batch_size", "word " * 40)])
    found.facts.append(("weights", "from /" + "long/" * 40 + ", sha256 " + "a" * 64))
    found.trainable.append(("patch embedding", "1,000,000", "1e-05 to 0.001", "0 to 0.0001"))
    text = StringIO()
    print_page(found, Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    packed = "".join(text.getvalue().split())
    assert "a" * 64 in packed
    assert "long/" * 40 in packed
    assert packed.count("word") == 40


def test_a_validation_that_a_kill_cut_off_is_a_note(tmp_path):
    summary = tmp_path / "fold_0" / "validation" / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text('{"metric_per_case": [')
    found = Examination("a title")
    look_at_validations(tmp_path, found)
    (problem,) = found.problems
    assert "summary.json cannot be read" in problem.text
    assert not problem.fatal


@pytest.fixture
def results(home, tmp_path, monkeypatch):
    """A results folder that must not come to be."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("hours", "said"), [(71, []), (296, ["the run takes 12 days here; 81 epochs would take one"])]
)
def test_a_run_of_days_is_noted(hours, said):
    notes = long_run({"num_epochs": 1000}, hours)
    assert [note.text for note in notes] == said
    assert not any(note.fatal for note in notes)


def write_config(folder, **model):
    config = folder / "look.yaml"
    model = {"model_path": "linear", "backbone": "test_vit"} | model
    train = {"batch_size": 2, "patch_size": [40, 56], "num_epochs": 2}
    config.write_text(yaml.safe_dump({"model": model, "train": train}))
    return config


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_the_doctor_looks_and_leaves_nothing_behind(home, results, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    weights = tmp_path / "vit.pth"
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), weights)
    config = write_config(tmp_path, checkpoint_path=str(weights))
    before = {file: file.stat().st_mtime_ns for file in (home / "preprocessed").rglob("*")}
    monkeypatch.setattr(
        sys,
        "argv",
        f"nnUNetv2_doctor_vit {DATASET} 2d --config {config} -device cpu".split(),
    )
    doctor()
    *page, command = capsys.readouterr().out.splitlines()
    assert command == f"  nnUNetv2_train_vit {DATASET} 2d 0 --config {config} -device cpu"
    assert max(map(len, page)) <= 80
    page = "\n".join(page)
    packed = "".join(page.split())
    for expected in (
        "loaded78of78tensorsintimmlayout",
        "40x56px,3x4patchesof16px:13tokens,37%padding",
        "GFLOPforward",
        ":2epochsof250stepsand50ofonlinevalidation",
        "GiB,thewholeprocess",
        "largestbatchnotmeasuredoncpu",
        "note:train.patch_size:[40,56]ispaddedto[48,64]",
        "note:train.num_epochs:2epochsof250iterationsare500steps",
    ):
        assert expected in packed, page
    assert {f: f.stat().st_mtime_ns for f in (home / "preprocessed").rglob("*")} == before
    assert not results.exists()


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_what_is_fatal_ends_with_exit_code_1(results, tmp_path, monkeypatch, capsys):
    """LoRA that gets no gradient (the trainer sees it), over random weights."""

    def around(module, image, *_):
        return module.get_base_layer()(image)

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.forward", around)
    config = write_config(tmp_path, pretrained=False)
    arguments = f"nnUNetv2_doctor_vit {DATASET} 2d --config {config} -device cpu"
    monkeypatch.setattr(sys, "argv", arguments.split())
    with pytest.raises(SystemExit) as caught:
        doctor()
    assert caught.value.code == 1
    page = " ".join(capsys.readouterr().out.split())
    assert "fatal: model.checkpoint_path: the backbone has random weights" in page
    assert "fatal: lora.target_modules: 12 of 12 LoRA tensors got no gradient" in page


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_loss_that_is_not_finite_is_fatal(results, tmp_path):
    torch.manual_seed(0)
    state = create_backbone("test_vit", pretrained=False)[0].state_dict()
    state["norm.weight"].fill_(torch.finfo(torch.float32).max)
    torch.save(state, tmp_path / "huge.pth")
    config = write_config(tmp_path, checkpoint_path=str(tmp_path / "huge.pth"))
    found = examine(DATASET, "2d", config, device="cpu")
    fatal = {problem.key for problem in found.problems if problem.fatal}
    assert fatal == {"train.amp_dtype", "model.input_norm"}


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_case_that_was_not_in_the_sample_is_named(home, results, tmp_path, monkeypatch):
    """All are broken, and none is looked at before: whichever is drawn, a reader fails."""
    shutil.copytree(home / "preprocessed", tmp_path / "preprocessed")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    for file in (tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d").glob("*.b2nd"):
        file.write_bytes(file.read_bytes()[:99])
    for module in (looks, from_plans):
        monkeypatch.setattr(module, "sample_of", lambda names: [])
    found = examine(DATASET, "2d", write_config(tmp_path, pretrained=False), device="cpu")
    (problem,) = (problem for problem in found.problems if problem.key == "data" and problem.fatal)
    assert "cannot be read" in problem.text


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_users_mistake_ends_with_exit_code_2(results, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, checkpoint_path=str(Path("gone.pth")))
    arguments = f"nnUNetv2_doctor_vit {DATASET} 2d --config {config} -device cpu"
    monkeypatch.setattr(sys, "argv", arguments.split())
    with pytest.raises(SystemExit) as caught:
        doctor()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("workers", "said"),
    [(0, "before each step: no worker"), (1, "by one worker"), (3, "shared by 3 workers")],
)
def test_it_is_said_who_loads(workers, said):
    assert said in say_who_loads(workers)
