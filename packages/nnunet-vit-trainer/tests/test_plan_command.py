"""The command that plans: from a raw data set to plans that a training derives its own from."""

import json
import os
from math import prod
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from trained_results import call

from nnunet_vit_trainer.commands.plan import plan
from nnunet_vit_trainer.launch.prepare import prepare
from nnunet_vit_trainer.launch.request import Request
from nnunet_vit_trainer.planning import run
from nnunet_vit_trainer.report.command import command_of

CONFIG = """
model: {model_path: linear, backbone: test_vit, pretrained: false}
lora: {enabled: false}
"""
SQUARE, SIDE = 20, 75


@pytest.fixture
def home(tmp_path, monkeypatch, pools_of_threads):
    """nnU-Net's folders, and two configs, whose steps are not counted: test_planning does that."""
    monkeypatch.setattr(run, "counter_of", lambda *of: lambda n, tile: 10**7 + 500 * n * prod(tile))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a forked process may wait for ever"))
    for kind in ("raw", "preprocessed", "results"):
        (tmp_path / kind).mkdir()
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "own.yaml").write_text(f"{CONFIG}train: {{patch_size: [48, 64], batch_size: 3}}\n")
    return tmp_path


def write_json(folder, ending, **more):
    content = {"channel_names": {"0": "grey"}, "numTraining": 6, "file_ending": ending}
    content |= {"labels": {"background": 0, "a": 1, "b": 2}}
    (folder / "dataset.json").write_text(json.dumps(content | more))


@pytest.fixture
def pictures(home):
    """Six PNG files of 75 x 60 px, with squares of two classes, of 20 and 10 px."""
    folder = home / "raw" / "Dataset900_Squares"
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((SIDE, 60), np.uint8)
        mask[3 : 3 + SQUARE, number : number + SQUARE] = 1
        mask[40:50, 40:50] = 2
        image = rng.integers(1, 255, mask.shape, np.uint8)
        Image.fromarray(image).save(folder / "imagesTr" / f"c{number}_0000.png")
        Image.fromarray(mask).save(folder / "labelsTr" / f"c{number}.png")
    write_json(folder, ".png")
    return home / "preprocessed" / folder.name


def plans_in(folder, name="nnUNetViTPlans"):
    return json.loads((folder / f"{name}.json").read_text())


def request(config):
    return Request("900", "2d", "all", config, plans="nnUNetViTPlans", device="cpu")


def test_a_data_set_is_planned_and_a_training_takes_the_plan(pictures, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # of which nnU-Net's own command fails
    call(plan, 900, "--config", "tiny.yaml", "-npfp", 1)
    said = capsys.readouterr().out
    reasons, _, rest = said.partition("\nWritten: ")
    assert max(len(line.rstrip()) for line in reasons.splitlines()) <= 80
    assert "b, smallest of 2 classes: 11 px, 0.7 patches of 16 px" in reasons
    assert "nnUNetv2_preprocess -d 900 -c 2d -plans_name nnUNetViTPlans\n" in rest
    assert "nnUNetv2_train_vit 900 2d 0 --config tiny.yaml -p nnUNetViTPlans\n" in rest
    plans = plans_in(pictures)
    (settings,) = plans["configurations"].values()
    assert settings["patch_size"] == [144, 128]
    assert settings["spacing"] == [75 / 144] * 2
    assert settings["data_identifier"] == "nnUNetPlans_2d_144px"
    assert settings["batch_size"] == 2
    assert settings["architecture"]["network_class_name"].endswith(".build_network")
    assert plans["vit_planned"]["config"] == "tiny"
    assert plans["vit_planned"]["reasons"][2].startswith("objects: b, smallest")
    data = pictures / settings["data_identifier"]
    data.mkdir()
    for name in ("c0.pkl", "c0.b2nd"):
        (data / name).touch()
    derived = prepare(
        Request("900", "2d", "all", "tiny.yaml", plans="nnUNetViTPlans", device="cpu")
    )
    assert derived.plans["plans_name"] == "nnUNetViTPlans_tiny"
    assert derived.plans["configurations"]["2d"]["patch_size"] == [144, 128]
    command = command_of(Path(derived.folder, "fold_all"), derived.plans)
    assert command.endswith("900_Squares 2d all --config tiny.yaml -p nnUNetViTPlans")
    # As train.patch_size and train.batch_size of any config do over any plan.
    derived = prepare(request("own.yaml"))
    assert derived.plans["configurations"]["2d"]["patch_size"] == [48, 64]
    assert derived.plans["configurations"]["2d"]["batch_size"] == 3
    call(plan, 900, "--config", "tiny.yaml")  # once more, with the data there
    assert "nnUNetv2_preprocess" not in capsys.readouterr().out


def test_of_too_few_cases_to_split_all_are_trained(pictures, home, capsys):
    for kind in ("imagesTr", "labelsTr"):
        for file in (home / "raw" / pictures.name / kind).glob("c[45]*"):
            file.unlink()
    call(plan, 900, "--config", "tiny.yaml", "-npfp", 1)
    assert "nnUNetv2_train_vit 900 2d all --config tiny.yaml" in capsys.readouterr().out


def test_plans_of_others_are_not_written_over(pictures, home, capsys):
    pictures.mkdir(parents=True)
    (pictures / "nnUNetPlans.json").write_text('{"configurations": {}}')
    for words, message in (
        (("-p", "nnUNetPlans"), "was not written by nnUNetv2_plan_vit; give another name with -p"),
        (("-p", "a__b"), "-p a__b: up to 100 letters"),
        (("-gpu_memory_target", "0"), "-gpu_memory_target 0: GiB above 0 are expected"),
        (("-gpu_memory_target", "nan"), "-gpu_memory_target nan"),
        (("-npfp", "0"), "-npfp 0: at least 1 is expected"),
    ):
        assert call_fails(900, "--config", "tiny.yaml", *words, capsys=capsys).count(message) == 1
    own = {"vit_planned": {"config": "other"}, "configurations": {"mine": {"patch_size": [1, 1]}}}
    (pictures / "nnUNetViTPlans.json").write_text(json.dumps(own))
    said = call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert (
        "was planned for config 'other'; give another name with -p, such as nnUNetViTPlans2,"
        in said
    )
    own["vit_planned"]["config"] = "tiny"
    (pictures / "nnUNetViTPlans.json").write_text(json.dumps(own | {"configurations": ["2d"]}))
    said = call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert "its configurations are no mapping; give another name with -p, such as" in said
    (pictures / "nnUNetViTPlans.json").write_text(json.dumps(own))
    call(plan, 900, "--config", "tiny.yaml", "-gpu_memory_target", 4)
    assert plans_in(pictures)["configurations"]["mine"] == {"patch_size": [1, 1]}


def call_fails(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        call(plan, *arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_cannot_be_planned_is_one_line(pictures, home, capsys):
    assert "dataset 7 is not in" in call_fails(7, "--config", "tiny.yaml", capsys=capsys)
    said = call_fails(900, "--config", "tiny.yaml", "-gpu_memory_target", 1, capsys=capsys)
    assert "memory is not enough for a batch of two tiles: CUDA's own 1.5 GiB leave nothing" in said
    assert not (pictures / "nnUNetViTPlans.json").exists()
    stale = json.loads((pictures / "dataset_fingerprint.json").read_text())
    stale["spacings"].pop()
    (pictures / "dataset_fingerprint.json").write_text(json.dumps(stale))
    said = call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert f"is of {len(stale['spacings'])} cases, the data set has" in said
    (pictures / "dataset_fingerprint.json").write_text("{")
    said = call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert "dataset_fingerprint.json cannot be read" in said
    assert "remove it, and it is extracted anew" in said
    (pictures / "dataset_fingerprint.json").unlink()
    (home / "raw" / "Dataset900_Squares" / "labelsTr" / "c3.png").write_text("no picture")
    said = call_fails(900, "--config", "tiny.yaml", "-npfp", 1, capsys=capsys)
    assert "nnU-Net cannot plan Dataset900_Squares: " in said


def test_an_image_that_no_reader_takes_is_one_line(pictures, home, capsys):
    """nnU-Net prints a traceback for each reader that fails, also where the next does not."""
    (home / "raw" / "Dataset900_Squares" / "imagesTr" / "c0_0000.png").write_text("no picture")
    said = call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert "nnU-Net cannot plan Dataset900_Squares: " in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"labels": {"background": 0, "all": [1, 2], "b": 2}},
            "needs regions_class_order, a list of 2",
        ),
        ({"labels": {"background": 0, "ignore": 1, "b": 2}}, "without a gap are expected"),
    ],
)
def test_labels_that_nnunet_refuses_are_one_line_before_work(more, said, pictures, home, capsys):
    write_json(home / "raw" / "Dataset900_Squares", ".png", **more)
    assert said in call_fails(900, "--config", "tiny.yaml", capsys=capsys)
    assert not pictures.exists()


def test_of_volumes_the_slices_are_planned_alone(home, capsys):
    """Slices lie along the last axis here; regions are classes, and what is ignored is none.

    Spacings are the images': those of the masks say nothing, as TIFFs' often.
    """
    folder = home / "raw" / "Dataset901_Volumes"
    rng = np.random.default_rng(0)
    for kind, mark in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / kind).mkdir(parents=True)
        for number in range(3):
            mask = np.zeros((40, 50, 6), np.uint8)
            mask[5:25, 5:25] = 1
            mask[10:18, 10:18] = 2
            mask[30:, 40:] = 4
            values = rng.integers(1, 99, mask.shape).astype(np.float32) if mark else mask
            volume = sitk.GetImageFromArray(values)
            volume.SetSpacing((5.0, 0.5, 0.5) if mark else (1.0, 1.0, 1.0))
            sitk.WriteImage(volume, str(folder / kind / f"v{number}{mark}.nii.gz"))
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2], "rim": [3], "ignore": 4}
    write_json(folder, ".nii.gz", labels=labels, regions_class_order=[1, 2, 3], numTraining=3)
    call(plan, 901, "--config", "tiny.yaml", "-npfp", 1)
    said = capsys.readouterr().out
    assert "core, smallest of 2 classes: 9 px" in said
    assert "unseen   rim: no whole object in the masks that were looked at" in said
    assert "3D configurations are left out" in said
    plans = plans_in(home / "preprocessed" / folder.name)
    assert [*plans["configurations"]] == ["2d"]
    assert plans["transpose_forward"] == [2, 0, 1]
    settings = plans["configurations"]["2d"]
    assert settings["patch_size"] == [80, 96]
    assert settings["spacing"] == [0.5 * 50 / 96] * 2
