"""nnU-Net's own commands take what was imported: check, plan and preprocess."""

import json
import sys

import numpy as np
import pytest
from image_folders import coloured, mask, noise, picture, series, volume
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

from nnunet_vit_trainer.commands.import_images import import_images

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

CASES = range(3)
SIZE = (40, 48)
VOLUME = (4, 40, 48)


def write_colours(folder):
    for case in CASES:
        picture(folder / "images" / f"c {case}.png", noise(*SIZE, 3, seed=case))
        values = np.zeros((*SIZE, 3), np.uint8)
        values[:10, :12] = coloured((255, 0, 0))[0, 0]
        values[20:30] = (0, 0, 255)
        picture(folder / "labels" / f"c {case}.png", values)


def write_photos(folder):
    for case in CASES:
        picture(folder / f"p{case}.jpg", noise(*SIZE, seed=case))
        picture(folder / f"p{case}_mask.png", mask(255, shape=SIZE))


def write_deep(folder):
    for case in CASES:
        picture(folder / "images" / f"d{case}.tif", noise(*SIZE, seed=case).astype(np.float32) / 3)
        picture(folder / "masks" / f"d{case}.tif", mask(1, shape=SIZE))


def write_volumes(folder):
    for case in CASES:
        values = noise(*VOLUME, seed=case)
        for channel in ("t1", "t2"):
            volume(folder / f"v{case}" / f"v{case}_{channel}.nii.gz", values.astype(np.int16))
        volume(folder / f"v{case}" / f"v{case}_seg.nii.gz", (values > 200).astype(np.float32))


def write_dicom(folder):
    for case in CASES:
        values = noise(*VOLUME, seed=case).astype(np.int16) - 1000
        series(folder / "images" / f"s{case}", values)
        its_mask = (values > -800).astype(np.uint8)
        volume(folder / "masks" / f"s{case}.nii.gz", its_mask, origin=(0, 0, 0))


FOLDERS = {
    51: (write_colours, ["--labels", "red=#ff0000", "blue=#0000ff"], "NaturalImage2DIO"),
    52: (write_photos, [], "NaturalImage2DIO"),
    53: (write_deep, [], "NaturalImage2DIO"),
    54: (write_volumes, [], "SimpleITKIO"),
    55: (write_dicom, [], "SimpleITKIO"),
}


@pytest.mark.usefixtures("pools_of_threads")
def test_nnunet_checks_plans_and_preprocesses_what_was_imported(tmp_path, monkeypatch, capsys):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    for number, (write, options, _) in FOLDERS.items():
        folder = tmp_path / f"in{number}"
        write(folder)
        command = ["import_images", str(folder), "-d", str(number), "-n", "Mine", *options]
        monkeypatch.setattr(sys, "argv", command)
        import_images()
    capsys.readouterr()
    options = "-c 2d --verify_dataset_integrity -npfp 1 -np 1 -d"
    monkeypatch.setattr(sys, "argv", ["plan", *options.split(" "), *map(str, FOLDERS)])
    plan_and_preprocess_entry()
    assert capsys.readouterr().out.count("verify_dataset_integrity Done") == len(FOLDERS)
    for number, (_, _, reader) in FOLDERS.items():
        folder = tmp_path / "preprocessed" / f"Dataset{number:03d}_Mine"
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        assert plans["image_reader_writer"] == reader
        assert len(list((folder / "nnUNetPlans_2d").glob("*.pkl"))) == len(CASES)
    normalised = plans["configurations"]["2d"]["normalization_schemes"]
    assert normalised == ["CTNormalization"]  # of 55, whose DICOM says so
