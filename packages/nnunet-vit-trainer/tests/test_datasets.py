"""What nnU-Net has on the machine, and what of it cannot be meant: one line each."""

import json

import pytest

from nnunet_vit_trainer.launch.checks import check_fold, parse_fold
from nnunet_vit_trainer.plans.continuation import describe_data
from nnunet_vit_trainer.plans.datasets import (
    environment,
    find_dataset,
    read_dataset_json,
    read_plans,
)
from vit_backbone import UserError

NAME = "Dataset900_x"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (tmp_path / NAME).mkdir()
    return tmp_path


@pytest.mark.parametrize("wanted", [NAME, "900", 900, "0900", " 900 ", "0" * 5000 + "900"])
def test_a_dataset_is_its_folder(wanted, root):
    (root / f"{NAME}.zip").touch()
    (root / "Dataset900_y").touch()
    assert find_dataset(wanted) == (NAME, root / NAME)


@pytest.mark.parametrize(
    "wanted", ["7", "Dataset900", "900x", "", "-1", "9" * 5000, "x" * 5000, f"{NAME}.zip", "²"]
)
def test_no_such_dataset_is_one_line(wanted, root):
    (root / f"{NAME}.zip").touch()
    with pytest.raises(UserError, match=r"is not in .*plan_and_preprocess") as caught:
        find_dataset(wanted)
    assert len(str(caught.value)) <= 500


def test_two_datasets_of_a_number_are_named(root):
    (root / "Dataset900_y").mkdir()
    (root / "Dataset901_z").mkdir()
    with pytest.raises(UserError, match=r"\(there: Dataset900_x, Dataset900_y\); give its name"):
        find_dataset(900)
    assert find_dataset("Dataset900_y")[0] == "Dataset900_y"


@pytest.mark.parametrize("value", [None, "", "nowhere"])
def test_nnunets_variables_are_checked(value, root, monkeypatch):
    if value is None:
        monkeypatch.delenv("nnUNet_preprocessed")
    else:
        monkeypatch.setenv("nnUNet_preprocessed", value)
    with pytest.raises(UserError, match="the environment variable nnUNet_preprocessed"):
        find_dataset(900)
    monkeypatch.delenv("nnUNet_results", raising=False)
    with pytest.raises(UserError, match="nnUNet_results is not set"):
        environment("nnUNet_results")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "a mapping is expected"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "is no plans file of nnU-Net: it lacks configurations, dataset_name, plans_name"),
        (
            '{"dataset_name": "Dataset001_A", "plans_name": "p", "configurations": {"2d": {}}}',
            "is of dataset 'Dataset001_A'",
        ),
        (
            f'{{"dataset_name": "{NAME}", "plans_name": "p", "configurations": []}}',
            "it lacks configurations",
        ),
        (
            f'{{"dataset_name": "{NAME}", "plans_name": "p", '
            '"configurations": {"2d": {"patch_size": [1, 1]}}}',
            "lacks batch_size, normalization_schemes",
        ),
    ],
)
def test_plans_that_are_none_are_one_line(content, said, root):
    (root / NAME / "p.json").write_text(content)
    with pytest.raises(UserError, match=said):
        read_plans(root / NAME, "p", "2d")


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channels_are_named_as_nnunet_takes_them(key, root):
    labels = {"background": 0, "a": 1}
    content = json.dumps({key: {"0": "T1"}, "labels": labels})
    (root / NAME / "dataset.json").write_text(content)
    described = describe_data(root / NAME, "data")
    assert (described["channel_names"], described["labels"]) == ({"0": "T1"}, labels)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"labels": {}}', "names no channel_names"),
        ('{"channel_names": {}}', "names no labels"),
        (None, "cannot be read"),
    ],
)
def test_a_dataset_json_that_is_none_is_one_line(content, said, root):
    if content is not None:
        (root / NAME / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=said):
        read_dataset_json(root / NAME)


@pytest.mark.parametrize(
    ("fold", "meant"), [(0, 0), ("0", 0), ("00", 0), (" 0", 0), ("04", 4), ("all", "all")]
)
def test_a_fold_is_what_nnunet_takes(fold, meant):
    assert parse_fold(fold) == meant


@pytest.mark.parametrize(
    "fold",
    ["-1", -1, "first", "fold_0", "٣", "²", "", "1.0", 1.0, True, None, "ALL", "9" * 5000, "0 1"],
)
def test_what_is_no_fold_is_refused(fold):
    with pytest.raises(UserError, match=r"a number \(0 to 4\) or 'all' is expected") as caught:
        parse_fold(fold)
    assert len(str(caught.value)) <= 500


def test_a_fold_is_one_of_the_splits(root):
    (root / NAME / "data").mkdir()

    def check(fold):
        check_fold(fold, root / NAME, "data")

    with pytest.raises(UserError, match="0 cases cannot be split into 5 folds; train fold 'all'"):
        check(0)
    check("all")
    for i in range(5):
        (root / NAME / "data" / f"case{i}.pkl").touch()
    check(4)
    with pytest.raises(UserError, match=r"fold 5: there are 5 splits \(0 to 4\)"):
        check(5)
    splits = root / NAME / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 2))
    check(1)
    with pytest.raises(UserError, match=r"fold 2: there are 2 splits \(0 to 1\)"):
        check(2)
    for wrong in ("{}", "[]", "[1]", "[{}]", "["):
        splits.write_text(wrong)
        with pytest.raises(UserError, match="cannot be read"):
            check(0)
