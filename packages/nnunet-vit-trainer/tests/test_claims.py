"""Whose a plans file and a results folder are: no start writes over another one's."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from a_start import (
    DATASET,
    config,
    make_home,
    plans_of,
    results_of,
    start,
    train_nothing,
    write,
)

from nnunet_vit_trainer.doctor import examine
from nnunet_vit_trainer.launch import prepare as preparation
from nnunet_vit_trainer.launch import run
from vit_backbone import UserError, find_head


@pytest.fixture
def home(tmp_path, monkeypatch):
    return make_home(tmp_path, monkeypatch)


@pytest.fixture
def trained(monkeypatch):
    return train_nothing(monkeypatch)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"plans_name": "nnUNetPlans_iso"}', "was not derived by nnUNetv2_train_vit"),
        ('{"plans_name": ', "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_plans_file_that_is_not_ours_is_never_replaced(content, said, home, trained):
    plans_of(home, "iso").write_text(content)
    with pytest.raises(UserError, match=said):
        start(home, file=config(home, "iso"))
    assert plans_of(home, "iso").read_text() == content
    assert not results_of(home, "iso").exists()


def test_plans_of_ours_are_replaced(home, trained):
    start(home)
    start(home, file=config(home, train={"initial_lr": 0.5}))
    assert json.loads(plans_of(home).read_text())["vit"]["train"]["initial_lr"] == 0.5
    assert not list(home.rglob("*.tmp"))


def test_the_prepared_plans_are_trained_and_not_the_file(home, monkeypatch):
    """Another user's config of the name may replace the file while this one starts."""
    seen = []

    def train_fold(request, dataset, plans, folder):
        plans_of(home).write_text("{}")
        seen.append(plans)

    monkeypatch.setattr(run, "train_fold", train_fold)
    start(home, file=config(home, train={"initial_lr": 0.25}))
    assert seen[0]["vit"]["train"]["initial_lr"] == 0.25
    assert seen[0] == json.loads(json.dumps(seen[0]))


OTHER = {"train": {"initial_lr": 0.5}}
START = """
import json, sys
from nnunet_vit_trainer.launch import run
def train_fold(*_):
    print("under way", flush=True)
    sys.stdin.read()
run.train_fold = train_fold
run.run_training_vit({dataset!r}, "2d", 1, sys.argv[1], device="cpu")
"""


@contextlib.contextmanager
def under_way(file):
    """Another user's run, in its own process, before its first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", START.format(dataset=DATASET), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"under way\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_config_of_the_name_waits_for_no_run_under_way(home, trained):
    theirs = config(home)
    with under_way(theirs):
        with pytest.raises(UserError, match=r"is being trained in .*train\.initial_lr was 0\.001"):
            start(home, file=config(home, folder="b", **OTHER))
        assert json.loads(plans_of(home).read_text())["vit"]["train"]["initial_lr"] == 0.001
        start(home, file=theirs)  # another fold of the same
    # That run was killed before its first checkpoint: nothing of it is lost.
    start(home, file=config(home, folder="b", **OTHER))
    recorded = json.loads((results_of(home) / "plans.json").read_text())
    assert recorded["vit"]["train"]["initial_lr"] == 0.5


@pytest.mark.parametrize("left", ["fold_0/checkpoint_best.pth", "fold_all/validation/summary.json"])
def test_results_of_another_config_stay(left, home, trained):
    start(home)
    write(results_of(home) / left, {})
    with pytest.raises(UserError, match="holds results of another config"):
        start(home, file=config(home, folder="b", **OTHER))
    start(home)
    assert len(trained) == 2


def test_the_doctor_refuses_to_look_at_what_a_start_would_refuse(home, trained):
    start(home)
    write(results_of(home) / "fold_0" / "checkpoint_best.pth", {})
    before = {file: file.read_bytes() for file in home.rglob("*.json")}
    with pytest.raises(UserError, match="holds results of another config"):
        examine(DATASET, "2d", config(home, folder="b", **OTHER), device="cpu")
    assert before == {file: file.read_bytes() for file in home.rglob("*.json")}


def test_a_start_that_failed_does_not_block_the_mended_config(home, monkeypatch, trained):
    def fail(*_):
        fold = results_of(home) / "fold_0"
        fold.mkdir(parents=True, exist_ok=True)
        (fold / "training_log_1.txt").touch()
        (fold.parent / "plans.json").write_text(plans_of(home).read_text())  # as nnU-Net does
        raise RuntimeError("out of memory")

    monkeypatch.setattr(run, "train_fold", fail)
    with pytest.raises(RuntimeError):
        start(home)
    monkeypatch.setattr(run, "train_fold", lambda *_: None)
    start(home, file=config(home, folder="b", train={"batch_size": 1}))
    recorded = json.loads((results_of(home) / "plans.json").read_text())
    assert recorded["configurations"]["2d"]["batch_size"] == 1


def test_results_that_are_not_ours_are_left(home, trained):
    write(results_of(home) / "fold_0" / "checkpoint_final.pth", {})
    with pytest.raises(UserError, match=r"plans\.json cannot be read"):
        start(home)
    write(results_of(home) / "plans.json", {"plans_name": "nnUNetPlans_my"})
    with pytest.raises(UserError, match="holds results that are not of nnUNetv2_train_vit"):
        start(home)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vit", {}, "has lost model, train, backbone, weights; put the file back"),
        ("vit", None, "holds no results of nnUNetv2_train_vit"),
        (
            "vit",
            {"model": {}, "train": {}, "backbone": "b", "weights": 1},
            "lost backbone, weights",
        ),
        ("configurations", {}, "holds no results of nnUNetv2_train_vit"),
        ("plans_name", "nnUNetPlans_other", "the folder is named"),
    ],
)
@pytest.mark.parametrize("continues", [False, True])
def test_plans_in_the_results_that_were_edited_are_one_line(
    continues, key, value, said, home, trained
):
    start(home)
    write(results_of(home) / "fold_0" / "checkpoint_latest.pth", {})
    file = results_of(home) / "plans.json"
    write(file, json.loads(file.read_text()) | {key: value})
    with pytest.raises(UserError, match=said):
        start(home, continue_training=continues)
    assert len(trained) == 1


def test_a_results_folder_that_cannot_be_written_is_one_line(home, trained):
    (home / "results" / DATASET).touch()
    with pytest.raises(UserError, match="cannot be written"):
        start(home)


def test_what_is_put_there_while_weights_are_fetched_is_not_replaced(home, trained, monkeypatch):
    find = preparation.find_backbone

    def slow(*arguments):
        plans_of(home).write_text('{"plans_name": "nnUNetPlans_my"}')
        return find(*arguments)

    monkeypatch.setattr(preparation, "find_backbone", slow)
    with pytest.raises(UserError, match="was not derived by nnUNetv2_train_vit"):
        start(home)
    assert plans_of(home).read_text() == '{"plans_name": "nnUNetPlans_my"}'
    assert not trained


def test_a_head_may_have_nested_options_and_goes_on(home, trained, monkeypatch):
    """JSON, in which the results' plans lie, has no tuples."""

    def create_segmentation_model(*, widths=((1, 2), (3, 4)), **arguments):
        return find_head("linear")(**arguments)

    monkeypatch.setattr("vit_backbone.find_head", lambda name: create_segmentation_model)
    monkeypatch.setattr("nnunet_vit_trainer.network.find_head", lambda _: create_segmentation_model)
    start(home)
    write(results_of(home) / "fold_0" / "checkpoint_latest.pth", {})
    start(home, continue_training=True)
    assert trained[0] == trained[1]


def test_plans_that_are_there_already_are_not_written_again(home, trained, monkeypatch):
    """So that a read-only nnUNet_preprocessed ends no --val, --c or further fold."""
    start(home)
    before = plans_of(home).stat().st_ino
    deny(plans_of(home).parent, monkeypatch)
    start(home, fold=1)
    assert plans_of(home).stat().st_ino == before
    assert len(trained) == 2


@pytest.mark.parametrize("place", ["preprocessed", "results"])
def test_folders_that_cannot_be_written_are_refused_by_the_doctor_too(
    place, home, trained, monkeypatch
):
    file = config(home)
    folder = {"preprocessed": plans_of(home).parent, "results": home / "results"}[place]
    deny(folder, monkeypatch)
    said = rf"{folder} cannot be written, where .* go; let it be written"
    with pytest.raises(UserError, match=said):
        examine(DATASET, "2d", file, device="cpu")
    with pytest.raises(UserError, match=said):
        start(home, file=file)
    assert not trained
    assert not plans_of(home).exists()


def deny(folder, monkeypatch):
    """Let a folder be read-only, which root would not notice."""
    monkeypatch.setattr(os, "access", lambda path, *of: Path(path) != folder)
