"""What nnU-Net has on the machine, and what of it cannot be meant: one line each."""

import json

import pytest

from nnunet_vit_trainer.checkpoints.model_folder import read_model
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
    remedy = "run first: nnUNetv2_plan" if value == "nowhere" else "is not set; .*export nnUNet_raw"
    with pytest.raises(UserError, match=f"the environment variable nnUNet_preprocessed.*{remedy}"):
        find_dataset(900)
    monkeypatch.delenv("nnUNet_results", raising=False)
    with pytest.raises(UserError, match="nnUNet_results is not set"):
        environment("nnUNet_results")


@pytest.mark.parametrize("content", ["\ufeff{}", '{"a": "\\ud800"}', "[1]"])
def test_a_models_json_is_read_as_the_data_sets_is(content, tmp_path):
    """Of a file with a mark at its beginning nnU-Net knows nothing: it is not for us to take it."""
    (tmp_path / "plans.json").write_text(content, encoding="utf-8")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"plans\.json cannot be read"):
        read_model(tmp_path)
    with pytest.raises(UserError, match=r"plans\.json cannot be read"):
        read_plans(tmp_path, "plans", "2d")


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
        *(
            (
                f'{{"dataset_name": "{NAME}", "plans_name": "p", "configurations": {{"2d": '
                f'{{"patch_size": {patch}, "batch_size": {batch}, '
                '"normalization_schemes": []}}}',
                "whole numbers of at least 1 are expected",
            )
            for patch, batch in [("[32, 32]", '"12"'), ("[32, 32]", "0"), ("[32, 32.5]", "2")]
        ),
        *(
            (
                f'{{"dataset_name": "{NAME}", "plans_name": "p", "configurations": {{"2d": '
                '{"patch_size": [32, 32], "batch_size": 2, '
                f'"normalization_schemes": {schemes}}}}}}}',
                "a list of names, one per channel, is expected",
            )
            for schemes in ("null", "[]", "[1]", '"ZScoreNormalization"')
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
    cases = [f"case{i}" for i in range(5)]
    splits.write_text(json.dumps([{"train": cases[:4], "val": cases[4:]}] * 2))
    check(1)
    with pytest.raises(UserError, match=r"fold 2: there are 2 splits \(0 to 1\)"):
        check(2)
    for wrong in ("{}", "[]", "[1]", "[{}]", "[", '[{"train": "case0", "val": ["case1"]}]'):
        splits.write_text(wrong)
        with pytest.raises(UserError, match="cannot be read"):
            check(0)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"train": ["a", "gone"], "val": ["b"]}, "1 of 2 cases in 'train' .* such as 'gone'"),
        ({"train": ["a"], "val": ["gone", "lost"]}, "2 of 2 cases in 'val' .* such as 'gone'"),
        ({"train": [], "val": ["b"]}, "no case in 'train'"),
        ({"train": ["a"], "val": []}, "no case in 'val'"),
        ({"train": [1], "val": ["b"]}, "1 in 'train' is no text; write \"1\""),
    ],
)
def test_a_split_that_data_workers_would_die_of_is_refused(split, said, root):
    (root / NAME / "data").mkdir()
    for name in "ab":
        (root / NAME / "data" / f"{name}.pkl").touch()
    good = {"train": ["a"], "val": ["b"]}
    (root / NAME / "splits_final.json").write_text(json.dumps([good, split]))
    check_fold(0, root / NAME, "data")
    check_fold("all", root / NAME, "data")
    with pytest.raises(UserError, match=rf"splits_final\.json: fold 1: .*{said}"):
        check_fold(1, root / NAME, "data")


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0},
        {"background": 0, "a": 1},
        {"b": 2, "background": 0, "a": 1},
        {"background": "0", "a": "1"},
        {"background": 0, "a": 1, "ignore": 2},
        {"background": 0, "a": [1]},
        {"background": 0, "a": 1, "ignore": None},
        {"background": 0, "whole": [1, 2, 4], "core": [2, 4]},
        {"background": 0, "whole": [1, 2, 4], "core": 2, "ignore": 5},
        {"background": 0, "whole": [1, 2], "core": [2], "nothing": [0, 0]},
    ],
)
def test_labels_that_nnunet_takes(labels, root):
    content = {"channel_names": {"0": "T1"}, "labels": labels, "regions_class_order": [1, 2]}
    (root / NAME / "dataset.json").write_text(json.dumps(content))
    assert read_dataset_json(root / NAME)["labels"] == labels


@pytest.mark.parametrize("order", [["1", "2"], [7, 8], [[1], [2]], [1], [1, None], "12", {}])
def test_an_order_of_regions_that_no_mask_could_hold_is_one_line(order, root):
    """nnU-Net writes these numbers at the final validation, and dies of a text then."""
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    content = {"channel_names": {"0": "T1"}, "labels": labels, "regions_class_order": order}
    (root / NAME / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="a list of 2 of the labels' numbers, got"):
        read_dataset_json(root / NAME)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"background": 0, "a": 255}, "0, 1, 2, ... without a gap are expected; renumber them"),
        ({"background": 0, "a": 2, "b": 3}, "without a gap"),
        ({"background": 0, "a": 1, "ignore": 255}, "the number after the others, 2, without a gap"),
        ({"background": 0, "ignore": 1, "a": 2}, "without a gap"),
        ({"background": 0, "a": 1, "ignore": 1}, "'ignore' is expected to be .* others, 2,"),
        ({"background": 0, "a": 1, "ignore": [2]}, "'ignore' is expected to be"),
        ({"background": 0, "a": 1, "ignore": "2"}, "'ignore' is expected to be"),
        ({"background": 0, "all": [1, 2], "ignore": 2}, "after the others, 3,"),
        ({"background": 0, "all": [1, 2]}, "needs regions_class_order, a list of 1 .* got None"),
        ({"background": 0, "a": 1.5}, "names with numbers are expected"),
        ({"background": 0, "a": -1}, "without a gap"),
        ({"background": 1, "a": 0}, "'background': 0 among them"),
        ({"a": 1}, "'background': 0 among them"),
        ({"0": "background", "1": "a"}, "'background': 0 among them"),
        ({"background": 0, "a": None}, "names with numbers are expected"),
        ({"background": 0, "a": "x"}, "names with numbers are expected"),
        ({"background": 0, "a": {}}, "names with numbers are expected"),
        ({"background": [0, 1]}, "names with numbers are expected"),
        ({}, "names with numbers are expected"),
    ],
)
def test_labels_that_nnunet_has_no_outputs_for_are_one_line(labels, said, root):
    content = {"channel_names": {"0": "T1"}, "labels": labels}
    (root / NAME / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        read_dataset_json(root / NAME)
