"""The command that probes backbones: a tiny data set, tiny ViTs, and the files that it writes."""

import json
import os

import numpy as np
import pytest
import torch
from a_validation import size_of
from probe_data import DATASET, blocks, write_data
from trained_results import call

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.commands.probe import probe
from nnunet_vit_trainer.config.reading import load_config
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.probing import run


@pytest.fixture(scope="module")
def weights(exporter, tmp_path_factory):
    """A folder with a ViT's weights, the same once more, and what is none."""
    folder = tmp_path_factory.mktemp("my weights")
    for name in ("a vit", "twin"):
        (folder / f"{name}.pth").write_bytes((exporter / "vit.pth").read_bytes())
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, folder / "resnet.pth")
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Four cases of four channels; one has no class b."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.chdir(tmp_path)
    cases = {f"c{i}": blocks(i, channels=4) for i in range(4)}
    cases["c3"][1][cases["c3"][1] == 2] = 0
    write_data(tmp_path / "preprocessed", cases)
    return tmp_path


def options(weights, *more):
    return [f"test_vit={weights}/a vit.pth", f"test_vit={weights}/twin.pth", *more]


def test_a_table_a_picture_and_a_config_are_written(home, weights, capsys):
    words = options(weights, weights / "resnet.pth")
    call(probe, 900, "--backbones", *words, "--random", "--patch_size", "own", "16", "8")
    said = capsys.readouterr().out
    assert max(map(len, said.partition("note:")[0].splitlines())) <= 80
    folder = home / f"probe_{DATASET}"
    content = json.loads((folder / "probe.json").read_text())
    reached = [of for of in content["rows"] if not of["failed"]]
    assert len(reached) == 8  # two weights, two patch sizes, two choices of taps
    assert {(of["patch"], of["taps"]) for of in reached} == {
        *((16, "last"), (16, "four"), (8, "last"), (8, "four"))
    }
    dice = [of["pixels"]["mean"] for of in reached]
    assert dice == sorted(dice, reverse=True)
    assert [of["random"] for of in reached].count(True) == 4
    (broken,) = (of for of in content["rows"] if of["failed"])
    assert broken["name"] == "resnet"
    assert "failed: resnet" in said
    assert "note: fine-tuning keeps the order of weights, not always that of taps" in said
    assert "twin: the same weights as a vit, tried once" in content["notes"]
    assert size_of(folder / "features.png")[0] == 1000
    (config,) = folder.glob("*.yaml")
    load_config(config)
    command = f"Train: nnUNetv2_train_vit {DATASET} 2d all --config probe_{DATASET}/{config.name}"
    assert command in said  # four cases cannot be split
    first = content["rows"]
    call(
        probe, "900", "--backbones", *words, "--random", "--patch_size", "own", "16", "8", "--json"
    )
    again = json.loads(capsys.readouterr().out)["rows"]
    for of in (*first, *again):
        of.pop("seconds")
    assert again == first


def test_channels_on_the_unit_range_are_tried_with_and_without_statistics(home, weights, capsys):
    import shutil

    shutil.rmtree(home / "preprocessed")
    cases = {f"c{i}": blocks(i, channels=3) for i in range(2)}
    write_data(home / "preprocessed", cases, scheme="RescaleTo01")
    norms = ["auto", "none", "meddinov3_ct"]
    call(probe, 900, "--backbones", options(weights)[0], "--taps", "last", "--input_norm", *norms)
    rows = json.loads((home / f"probe_{DATASET}" / "probe.json").read_text())["rows"]
    assert {of["input_norm"] for of in rows if not of["failed"]} == {"auto", "none"}
    (refused,) = (of for of in rows if of["failed"])
    assert "it would normalise twice" in refused["failed"]
    assert "norm" in capsys.readouterr().out


def test_where_nothing_can_be_tried_the_reasons_are_told(home, weights, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", weights / "resnet.pth", "-o", "out")
    assert stopped.value.code == 1
    assert "failed: resnet: " in capsys.readouterr().out
    assert [file.name for file in (home / "out").iterdir()] == ["probe.json"]


def test_a_probe_that_ended_between_its_files_can_be_run_again(home, weights, monkeypatch):
    """What was written first is not taken for somebody else's."""
    words = (900, "--backbones", options(weights)[0], "--taps", "last", "-o", "out")
    written = []

    def whole(file):
        written.append(file)
        if len(written) > 1:
            raise OSError("killed")
        return written_whole(file)

    with monkeypatch.context() as patch:
        patch.setattr(run, "written_whole", whole)
        with pytest.raises(SystemExit):
            call(probe, *words)
    assert len(written) == 2
    call(probe, *words)
    names = {file.name for file in (home / "out").iterdir()}
    assert {"probe.json", "features.png"} < names


def test_a_picture_that_no_probe_drew_is_not_replaced(home, weights, capsys):
    (home / "features.png").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", options(weights)[0], "-o", ".")
    assert stopped.value.code == 2
    assert "-o . holds a features.png of no probe; give another" in capsys.readouterr().err
    assert (home / "features.png").read_text() == "mine"


def test_an_earlier_table_stays_where_nothing_can_be_tried(home, weights, capsys):
    call(probe, 900, "--backbones", options(weights)[0], "--taps", "last", "-o", "out")
    before = {file: file.read_bytes() for file in (home / "out").iterdir()}
    with pytest.raises(SystemExit):
        call(probe, 900, "--backbones", weights / "resnet.pth", "-o", "out")
    assert {file: file.read_bytes() for file in (home / "out").iterdir()} == before
    assert "nothing is written: out/probe.json of an earlier probe stays" in capsys.readouterr().out


def test_a_named_backbone_without_its_weights_is_tried_with_random_ones(home, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    call(probe, 900, "--backbones", "test_vit", "no_vit", "--random", "--taps", "last")
    rows = json.loads((home / f"probe_{DATASET}" / "probe.json").read_text())["rows"]
    assert (rows[0]["name"], rows[0]["failed"]) == ("test_vit, random", "")
    failed = {of["name"]: of["failed"] for of in rows[1:]}
    assert failed.keys() == {"test_vit", "no_vit"}
    assert failed["test_vit"].endswith("(here: test_vit=FILE)")
    assert "=FILE" not in failed["no_vit"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--taps", "2,5"], "or four blocks"),
        (["--patch_size", "0"], "1 to 256 pixels"),
        (["--tiles", "1"], "at least 2"),
        (["--seed", "-1"], "--seed -1: 0 to 4294967295"),
        (["-o", "no/such/folder"], "a folder, or a name for one"),
        (["-c", "3d_fullres"], "has no configuration|have no configuration"),
        (["-p", "other"], "run nnUNetv2_plan_and_preprocess"),
    ],
)
def test_what_cannot_be_meant_is_one_line(home, weights, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", options(weights)[0], *words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert any(part in line for part in said.split("|"))


def test_a_single_case_is_refused_with_what_to_do(home, weights, capsys):
    for file in (home / "preprocessed" / DATASET / "nnUNetPlans_2d").iterdir():
        if not file.name.startswith("c0"):
            file.unlink()
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", options(weights)[0])
    assert stopped.value.code == 2
    assert "give at least 2" in capsys.readouterr().err


def test_a_list_in_a_file_is_read(home, weights):
    (home / "list.txt").write_text(f"test_vit={weights}/a vit.pth\n\n")  # no word is empty
    call(probe, 900, "--backbones", "@list.txt", "--taps", "last", "--tiles", "2", "-o", "out")
    rows = json.loads((home / "out" / "probe.json").read_text())["rows"]
    assert [of["name"] for of in rows] == ["a vit"]
    assert np.isfinite(rows[0]["seconds"])


def test_a_folder_that_nobody_may_write_into_is_refused_before_the_work(
    home, weights, capsys, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda *of: False)
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", options(weights)[0], "-o", "out")
    assert stopped.value.code == 2
    assert "-o out cannot be written into" in capsys.readouterr().err


def test_what_was_probed_is_what_the_command_trains(home, weights, capsys):
    folder = home / "preprocessed" / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    (folder / "mine.json").write_text(json.dumps(plans | {"plans_name": "mine"}))
    words = ["--taps", "last", "--tiles", "2", "-o", "out", "-p", "mine"]
    call(probe, 900, "--backbones", options(weights)[0], *words)
    assert capsys.readouterr().out.rstrip().endswith("-p mine")


def test_plans_that_a_training_derived_are_refused_as_it_does(home, weights, capsys):
    folder = home / "preprocessed" / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    derived = plans | {"plans_name": "nnUNetPlans_tiny", PLANS_KEY: {}}
    (folder / "nnUNetPlans_tiny.json").write_text(json.dumps(derived))
    with pytest.raises(SystemExit) as stopped:
        call(probe, 900, "--backbones", options(weights)[0], "-p", "nnUNetPlans_tiny")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "plans 'nnUNetPlans_tiny' are derived already; give the dataset's own with -p" in said
