"""Odd and bad data through the real commands: it works, or one line names the case."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from PIL import Image

from nnunet_vit_trainer.commands.doctor import doctor
from nnunet_vit_trainer.doctor import examine
from nnunet_vit_trainer.launch.run import run_training_vit
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
from vit_backbone import UserError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    # Of blosc2's blocks where a test writes cases, and of means of nothing in empty masks.
    pytest.mark.filterwarnings("ignore:Warning. Received empty chunks:UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:nnunetv2"),
]

DATASET = "Dataset910_Odd"
TRAIN = {
    "num_epochs": 1,
    "num_iterations_per_epoch": 4,
    "num_val_iterations_per_epoch": 2,
    "batch_size": 4,
    "patch_size": [48, 48],
}
SHAPES = {
    "dot": (1, 1),
    "line": (1, 5000),
    "column": (300, 1),
    "small": (20, 30),
    "constant": (64, 64),
    "black": (64, 64),
    "empty": (64, 64),
    "plain": (64, 64),
}


def write_odd(raw):
    """Write a case of each shape; the mask is where the image is bright."""
    folder = raw / DATASET
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for name, shape in SHAPES.items():
        image = rng.integers(1, 256, shape).astype(np.uint8)
        mask = (image > 128).astype(np.uint8)
        if name in ("constant", "black"):
            image[:] = 7 * (name == "constant")
        if name == "empty":
            mask[:] = 0
        Image.fromarray(image).save(folder / "imagesTr" / f"{name}_0000.png")
        Image.fromarray(mask).save(folder / "labelsTr" / f"{name}.png")
    description = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "bright": 1},
        "numTraining": len(SHAPES),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def write_config(folder, name="odd", **train):
    config = folder / f"{name}.yaml"
    model = {"model_path": "linear", "backbone": "test_vit", "pretrained": False, "tune": "full"}
    config.write_text(yaml.safe_dump({"model": model, "train": TRAIN | train}))
    return config


@pytest.fixture(scope="module")
def odd(tmp_path_factory, home_of):
    home = tmp_path_factory.mktemp("odd")
    write_odd(home / "raw")
    with home_of(home, "910"):
        yield home


@pytest.fixture
def copied(odd, tmp_path, monkeypatch):
    """The preprocessed data set, for a test that spoils it; and where its cases lie."""
    shutil.copytree(odd / "preprocessed", tmp_path / "preprocessed")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    folder = tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d"
    assert len(list(folder.glob("*.pkl"))) == len(SHAPES)
    return folder


def spoil(folder, name, *, label=None, pixel=None, channels=1):
    """Write a preprocessed case anew, with another label, pixel or number of channels."""
    image, mask, _, properties = nnUNetDatasetBlosc2(str(folder), [name]).load_case(name)
    image, mask = np.repeat(image[:], channels, axis=0), mask[:].copy()
    if label is not None:
        mask[mask == 1] = label
    if pixel is not None:
        image[..., ::5, ::5] = pixel
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):
        (folder / f"{name}{ending}").unlink()
    nnUNetDatasetBlosc2.save_case(image, mask, properties, str(folder / name))


def test_every_shape_and_constant_images_train_and_are_predicted(odd):
    folder = run_training_vit(DATASET, "2d", "all", write_config(odd), device="cpu")
    for name, shape in SHAPES.items():
        with Image.open(folder / "validation" / f"{name}.png") as predicted:
            assert predicted.size == shape[::-1], name
    log = "".join(file.read_text() for file in folder.glob("training_log*.txt"))
    assert "steps of this epoch were skipped" not in log
    assert not re.search(r"WARNING: validation case [a-z]", log)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"label": 255}, "case small has label 255 in its mask, dataset.json names 0, 1"),
        ({"channels": 2}, "case small has 2 channels, the plans have 1"),
        ({"pixel": np.nan}, "case small has NaN or infinite pixels in channel 0"),
        ({"pixel": np.inf}, "case small has NaN or infinite pixels in channel 0"),
    ],
    ids=str,
)
def test_a_bad_case_ends_a_training_and_a_doctor_in_one_line(bad, said, copied, tmp_path):
    spoil(copied, "small", **bad)
    config = write_config(tmp_path, num_iterations_per_epoch=100)
    with pytest.raises(UserError, match=said):
        run_training_vit(DATASET, "2d", "all", config, device="cpu")
    found = examine(DATASET, "2d", config, device="cpu")
    (fatal,) = [problem for problem in found.problems if problem.fatal]
    assert fatal.key == "data"
    assert said in fatal.text


@pytest.mark.parametrize("label", [255, 2])
def test_a_label_that_the_sample_has_not_shown_is_named_when_the_loss_meets_it(
    label, copied, tmp_path, monkeypatch
):
    monkeypatch.setattr("nnunet_vit_trainer.training.from_plans.sample_of", lambda names: names[:0])
    monkeypatch.setattr("nnunet_vit_trainer.training.from_plans.have_foreground", lambda *_: True)
    spoil(copied, "plain", label=label)
    config = write_config(tmp_path, num_iterations_per_epoch=100)
    with pytest.raises(UserError, match=f"case plain has label {label} in its mask"):
        run_training_vit(DATASET, "2d", "all", config, device="cpu")


def test_empty_masks_everywhere_are_said_before_and_after(copied, tmp_path, monkeypatch, capsys):
    for name in SHAPES:
        spoil(copied, name, label=0)
    truth = copied.parent / "gt_segmentations"
    for file in truth.glob("*.png"):
        with Image.open(file) as mask:
            Image.new("L", mask.size).save(file)
    config = write_config(tmp_path)
    folder = run_training_vit(DATASET, "2d", "all", config, device="cpu")
    log = "".join(file.read_text() for file in folder.glob("training_log*.txt"))
    assert "WARNING: the masks of all 8 cases that were looked at are background" in log
    assert "WARNING: the masks of all 8 validation cases are background" in log
    monkeypatch.setattr(sys, "argv", f"doctor {DATASET} 2d --config {config} -device cpu".split())
    doctor()
    page = " ".join(capsys.readouterr().out.split())
    assert "note: data: the masks of all 8 cases that were looked at are background" in page
    assert "note: data: fold_all: the masks of all 8 validation cases are background" in page


def test_a_prediction_that_is_all_background_is_said(odd, monkeypatch):
    """An initialisation that nothing has trained finds nothing: background's bias is high."""

    def start(self):
        before(self)
        with torch.no_grad():
            self.network.head.seg_layers[0].bias[0] = 100

    before = nnUNetTrainer_vit.on_train_start
    monkeypatch.setattr(nnUNetTrainer_vit, "on_train_start", start)
    folder = run_training_vit(DATASET, "2d", "all", write_config(odd, "blind"), device="cpu")
    log = "".join(file.read_text() for file in folder.glob("training_log*.txt"))
    assert "WARNING: the prediction of all 8 validation cases is background, though" in log


def test_a_data_set_of_one_case_trains_on_all(copied, tmp_path):
    for file in copied.iterdir():
        if not file.name.startswith("plain"):
            file.unlink()
    config = write_config(tmp_path)
    with pytest.raises(UserError, match="1 cases cannot be split into 5 folds; train fold 'all'"):
        run_training_vit(DATASET, "2d", 0, config, device="cpu")
    folder = run_training_vit(DATASET, "2d", "all", config, device="cpu")
    assert [file.name for file in (folder / "validation").glob("*.png")] == ["plain.png"]


def test_a_case_that_was_made_infinite_later_is_named_by_the_validation_alone(copied, tmp_path):
    config = write_config(tmp_path)
    run_training_vit(DATASET, "2d", "all", config, device="cpu")
    spoil(copied, "plain", pixel=np.nan)
    folder = run_training_vit(DATASET, "2d", "all", config, device="cpu", only_run_validation=True)
    log = max(folder.glob("training_log*.txt"), key=os.path.getmtime).read_text()
    assert "WARNING: validation case plain has NaN or infinite pixels in channel 0" in log
