"""What stock nnU-Net can do goes on working: one data set that asks for much of it at once.

NIfTI volumes under 2d with anisotropic spacing and two channels, labels as overlapping regions,
and an ignore label; two configs, two folds, then nnU-Net's own commands on the results.
docs/nnunet-features.md lists what is covered.
"""

import importlib.metadata
import json
import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from agreement import masks_agree

from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER, run_training_vit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

DATASET = "Dataset901_Volumes"
SPACING = (1.0, 1.0, 4.0)
CONFIGS = {"small": {"r": 2}, "wide": {"r": 4}}
IGNORE = 3


def write_volumes(raw, cases=4):
    """Two nested balls in noise; the outermost slices are not annotated."""
    folder = raw / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:6, :48, :40]
    for case in range(cases):
        distance = np.hypot(np.hypot(4 * (z - 3), y - 20 - case), x - 18 + case)
        label = ((distance < 12).astype(np.uint8)) + (distance < 6)
        images = (label * 100.0, (label == 2) * 50.0)
        label[[0, -1]] = IGNORE
        for channel, image in enumerate(images):
            noisy = (image + rng.normal(0, 10, image.shape)).astype(np.float32)
            _write(noisy, folder / "imagesTr" / f"case{case}_{channel:04d}.nii.gz")
        _write(label, folder / "labelsTr" / f"case{case}.nii.gz")
    description = {
        "channel_names": {"0": "CT", "1": "T1"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": IGNORE},
        "regions_class_order": [1, 2],
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def _write(volume, file):
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(file))


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def command(name, *arguments):
    """Call a command's function in this process, as its script does."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        entry.load()()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, home_of):
    """Two configs trained in folds 0 and 1, with probabilities, and the nnU-Net folders' root."""
    home = tmp_path_factory.mktemp("volumes")
    write_volumes(home / "raw")
    with home_of(home, "901"):
        names = [f"case{i}" for i in range(4)]
        splits = [{"train": names[:2], "val": names[2:]}, {"train": names[2:], "val": names[:2]}]
        preprocessed = home / "preprocessed" / DATASET
        (preprocessed / "splits_final.json").write_text(json.dumps(splits))
        for name, lora in CONFIGS.items():
            content = {
                "model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False},
                "lora": lora,
                "train": {
                    "num_epochs": 2,
                    "num_iterations_per_epoch": 2,
                    "num_val_iterations_per_epoch": 1,
                    "batch_size": 2,
                },
            }
            (home / f"{name}.yaml").write_text(yaml.safe_dump(content))
            for fold in (0, 1):
                run_training_vit(
                    DATASET,
                    "2d",
                    fold,
                    home / f"{name}.yaml",
                    device="cpu",
                    export_validation_probabilities=True,
                )
        yield home


def model_folder(home, config, root="results"):
    return home / root / DATASET / f"{DEFAULT_TRAINER}__nnUNetPlans_{config}__2d"


def test_regions_an_ignore_label_and_volumes_train_under_2d(trained):
    for fold in (0, 1):
        validation = model_folder(trained, "small") / f"fold_{fold}" / "validation"
        summary = json.loads((validation / "summary.json").read_text())
        assert set(summary["mean"]) == {"(1, 2)", "2"}
        case = f"case{2 - 2 * fold}"
        predicted = sitk.ReadImage(str(validation / f"{case}.nii.gz"))
        assert predicted.GetSpacing() == SPACING
        assert sitk.GetArrayFromImage(predicted).shape == (6, 48, 40)
        assert sitk.GetArrayFromImage(predicted).max() <= 2  # the ignore label is not predicted
        probabilities = np.load(validation / f"{case}.npz")["probabilities"]
        assert probabilities.shape == (2, 6, 48, 40)
    plans = json.loads((model_folder(trained, "small") / "plans.json").read_text())
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    assert schemes == ["CTNormalization", "ZScoreNormalization"]


def test_the_best_configuration_is_found_among_ours(trained):
    command(
        "nnUNetv2_find_best_configuration",
        *(901, "-c", "2d", "-f", 0, 1, "-tr", DEFAULT_TRAINER, "-np", 1),
        *("-p", *(f"nnUNetPlans_{name}" for name in CONFIGS)),
    )
    results = trained / "results" / DATASET
    found = json.loads((results / "inference_information.json").read_text())
    assert len(found["all_results"]) == 3  # each alone, and both together
    assert (results / "inference_instructions.txt").is_file()


def test_two_models_are_ensembled(trained, tmp_path):
    folders = [model_folder(trained, name) / "fold_0" / "validation" for name in CONFIGS]
    for folder in folders:
        for name in ("plans.json", "dataset.json"):
            shutil.copy(folder.parents[1] / name, folder)
    command("nnUNetv2_ensemble", "-i", *folders, "-o", tmp_path, "-np", 1)
    assert {file.name for file in tmp_path.glob("*.nii.gz")} == {"case2.nii.gz", "case3.nii.gz"}


def test_validation_with_the_best_checkpoint(trained):
    folder = run_training_vit(
        *(DATASET, "2d", 0, trained / "small.yaml"),
        device="cpu",
        only_run_validation=True,
        val_with_best=True,
    )
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert summary["vit_checkpoint"] == "checkpoint_best.pth"


def test_an_exported_model_predicts_on_another_machine(trained, run, tmp_path):
    """Only nnUNet_results is set there, and neither config nor preprocessed data are."""
    archive = tmp_path / "model.zip"
    command(
        "nnUNetv2_export_model_to_zip",
        *("-d", 901, "-o", archive, "-c", "2d", "-f", 0, 1),
        *("-tr", DEFAULT_TRAINER, "-p", "nnUNetPlans_small"),
    )
    there = tmp_path / "there"
    there.mkdir()
    run("nnUNetv2_install_pretrained_model_from_zip", archive, nnUNet_results=str(there))
    arguments = [
        *("-d", "901", "-i", trained / "raw" / DATASET / "imagesTr"),
        *("-tr", DEFAULT_TRAINER, "-p", "nnUNetPlans_small", "-c", "2d", "-f", "0", "1"),
        *("-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities"),
    ]
    run("nnUNetv2_predict", *arguments, "-o", tmp_path / "a", nnUNet_results=str(there))
    command("nnUNetv2_predict", *arguments, "-o", tmp_path / "b")
    for case in range(4):
        assert masks_agree(*(read(tmp_path / f / f"case{case}.nii.gz") for f in "ab"))
        here, there = (np.load(tmp_path / f / f"case{case}.npz")["probabilities"] for f in "ab")
        # nnU-Net adds up logits in float16: two processes may differ by its last bits, 2**-11 of
        # a logit near 1, of which the sigmoid leaves a quarter.
        np.testing.assert_allclose(here, there, atol=2 * 2**-11 / 4 + 1e-4)
        assert here.std() > 0


def test_every_case_at_once(trained):
    folder = run_training_vit(DATASET, "2d", "all", trained / "small.yaml", device="cpu")
    assert folder.name == "fold_all"
    cases = {file.name for file in (folder / "validation").glob("*.nii.gz")}
    assert cases == {f"case{i}.nii.gz" for i in range(4)}
