"""Data that cannot be trained on: which case it is, in one line."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_vit_trainer.training.oversight.cases import (
    describe,
    faults_of,
    have_foreground,
    labels_allowed,
    name_what_failed_in_workers,
    naming_bad_cases,
    refuse_infinite,
    sample_of,
)
from nnunet_vit_trainer.training.oversight.verdict import find_emptiness
from nnunet_vit_trainer.training.shortage.workers import WORKER_FAILED
from vit_backbone import UserError

# Of blosc2's blocks, which nnU-Net tells it where it preprocesses itself.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2")

LABELS = {"background": 0, "a": 1, "b": 2}


def save(folder, name, *, channels=1, shape=(1, 6, 7), label=1, pixel=0.5):
    image = np.full((channels, *shape), 0.5, np.float32)
    image[-1, ..., -1] = pixel
    mask = np.zeros((1, *shape), np.int16)
    mask[..., 0] = label
    nnUNetDatasetBlosc2.save_case(image, mask, {"class_locations": {}}, str(folder / name))


def trainer_of(folder, labels=LABELS, order=None, channels=1):
    return SimpleNamespace(
        preprocessed_dataset_folder=str(folder),
        configuration_manager=SimpleNamespace(normalization_schemes=["z"] * channels),
        label_manager=LabelManager(labels, order),
        do_split=lambda: (["good"], sorted({f.stem for f in folder.glob("*.pkl")} - {"good"})),
    )


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, "good")
    return tmp_path


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"label": 255}, "case bad has label 255 in its mask, dataset.json names 0, 1, 2: mend"),
        ({"label": 3}, "has label 3 in its mask"),
        ({"label": -2}, "has label -2 in its mask"),
        ({"label": 1000}, "has label 1000 in its mask"),
        ({"channels": 2}, "case bad has 2 channels, the plans have 1: mend"),
        ({"pixel": np.nan}, "case bad has NaN or infinite pixels in channel 0: mend"),
        ({"pixel": np.inf}, "has NaN or infinite pixels"),
        ({"pixel": -np.inf}, "has NaN or infinite pixels"),
        ({"pixel": np.nan, "label": 255}, "has label 255"),
        ({"shape": (1, 1, 1), "label": 7}, "has label 7"),
        ({"shape": (5, 1, 300), "pixel": np.nan}, "has NaN or infinite pixels"),
    ],
)
def test_a_bad_case_is_named(bad, said, folder):
    save(folder, "bad", **bad)
    faults = faults_of(trainer_of(folder), ["good", "bad", "bad"], pixels=True)
    assert [*faults] == ["bad"]
    assert said in str(UserError(describe(faults)))


@pytest.mark.parametrize(
    "good",
    [
        {"label": 0},
        {"label": -1},
        {"label": 2},
        {"shape": (1, 1, 1)},
        {"shape": (1, 1, 5000)},
        {"shape": (3, 2, 1)},
        {"pixel": 3.0e38},
    ],
)
def test_what_can_be_trained_on_is_no_fault(good, folder):
    save(folder, "odd", **good)
    assert faults_of(trainer_of(folder), ["good", "odd"], pixels=True) == {}


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
@pytest.mark.parametrize("how", ["gone", "cut", "empty"])
def test_a_case_that_cannot_be_read_is_named(how, ending, folder):
    save(folder, "bad")
    file = folder / f"bad{ending}"
    content = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    faults = faults_of(trainer_of(folder), ["good", "bad"], pixels=True)
    assert [*faults] == ["bad"]
    assert "cannot be read" in faults["bad"]


def test_an_ignore_label_and_regions_are_labels():
    ignoring = LabelManager(LABELS | {"ignore": 3}, None)
    assert labels_allowed(ignoring) == {-1, 0, 1, 2, 3}
    regions = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
    assert labels_allowed(regions) == {-1, 0, 1, 2}


def test_many_bad_cases_are_one_line(folder):
    names = [f"case{i:03d}" for i in range(9)]
    for name in names:
        save(folder, name, label=255)
    line = str(UserError(describe(faults_of(trainer_of(folder), names, pixels=False))))
    assert "case000" in line
    assert "; and 6 more: mend the files in nnUNet_raw" in line
    assert line.endswith("preprocess anew")
    assert len(line) <= 500


@pytest.mark.parametrize(
    ("of", "picked"), [(0, 0), (1, 1), (19, 19), (20, 20), (21, 20), (999, 20)]
)
def test_a_sample_is_spread_over_all(of, picked):
    names = [str(i) for i in range(of)]
    sample = sample_of(names)
    assert len(sample) == len({*sample}) == picked
    assert sample[:1] + sample[-1:] == names[:1] + names[-1:]


def batch(*names, pixel=1.0):
    data = torch.ones(len(names), 1, 2, 2)
    data[-1, 0, 0, 0] = pixel
    return {"data": data, "keys": np.array(names)}


def test_a_loss_that_is_not_finite_is_laid_to_the_image_that_is_not(folder):
    save(folder, "bad", pixel=np.nan)
    trainer = trainer_of(folder)
    with pytest.raises(UserError, match="case bad has NaN"):
        refuse_infinite(trainer, [batch("good"), batch("good", "bad", pixel=np.nan)])
    refuse_infinite(trainer, [batch("good", "bad")])  # the part that it saw was finite
    refuse_infinite(trainer, [batch("good", pixel=np.inf)])  # an augmentation's fault
    refuse_infinite(trainer, [{"data": torch.full((1, 1, 2, 2), np.nan)}])


@pytest.mark.parametrize("error", [RuntimeError, IndexError])
def test_an_error_of_the_loss_is_laid_to_labels_it_cannot_take(error, folder):
    save(folder, "bad", label=255)
    trainer = trainer_of(folder)
    with (
        pytest.raises(UserError, match="case bad has label 255"),
        naming_bad_cases(trainer, [batch("good", "bad")]),
    ):
        raise error("index 255 is out of bounds")
    with pytest.raises(error, match="another reason"), naming_bad_cases(trainer, [batch("good")]):
        raise error("another reason")
    with naming_bad_cases(trainer, [batch("bad")]):
        pass


def test_a_batch_norm_of_one_value_says_what_to_change(folder):
    one = torch.zeros(1, 2, 1, 1)
    with (
        pytest.raises(UserError, match=r"train\.batch_size .*decoder\.norm: group"),
        naming_bad_cases(trainer_of(folder), [batch("good")]),
    ):
        torch.nn.BatchNorm2d(2)(one)
    with pytest.raises(ValueError, match="another"), naming_bad_cases(trainer_of(folder), []):
        raise ValueError("another")


def test_what_data_workers_died_of_is_looked_for_in_all_cases(folder):
    save(folder, "bad", channels=2)
    trainer = trainer_of(folder)
    with pytest.raises(UserError, match="case bad has 2 channels"):
        name_what_failed_in_workers(trainer, RuntimeError(f"{WORKER_FAILED}: ..."))
    name_what_failed_in_workers(trainer, RuntimeError("CUDA out of memory"))


def test_masks_without_foreground_are_noticed(folder):
    save(folder, "empty", label=0)
    save(folder, "outside", label=-1)
    trainer = trainer_of(folder)
    assert not have_foreground(trainer, ["empty", "outside"])
    assert have_foreground(trainer, ["empty", "good"])


def summary(*cases):
    """Each case: pixels predicted and pixels there, of two labels."""
    return {
        "metric_per_case": [
            {"metrics": {str(i): {"n_pred": p, "n_ref": r} for i, (p, r) in enumerate(case, 1)}}
            for case in cases
        ]
    }


NOTHING, MISSED, FOUND = ((0, 0), (0, 0)), ((0, 9), (0, 0)), ((0, 9), (4, 0))


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([MISSED], "the prediction of all 1 validation cases is background, though the masks of 1"),
        ([MISSED, NOTHING], "of all 2 validation cases is background, though the masks of 1"),
        ([NOTHING, NOTHING], "the masks of all 2 validation cases are background"),
        ([(((3, 0)), (0, 0))], "the masks of all 1 validation cases are background"),
        ([MISSED, FOUND], None),
        ([FOUND], None),
        ([], None),
    ],
)
def test_a_validation_that_says_nothing_is_said_to(cases, said):
    line = find_emptiness(summary(*cases))
    assert line is None if said is None else said in line


@pytest.mark.parametrize("content", [{}, {"metric_per_case": [{}]}])
def test_a_summary_of_nothing_says_nothing(content):
    assert find_emptiness(content) is None
