"""Folds on parts of the training cases: how they are drawn, and what splits_final.json holds."""

import json

import pytest
from trained_results import DATASET, call

from nnunet_vit_trainer.commands.compare import compare
from nnunet_vit_trainer.results import subsets
from nnunet_vit_trainer.results.subsets import (
    append_subsets,
    families_of,
    nested_subsets,
    parts_of,
)
from vit_backbone import UserError

CASES = [f"käse {i:02d}" for i in range(21)]


def split(train, val):
    return {"train": [*train], "val": [*val]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A preprocessed data set of five folds; the first trains on 16 cases, in no order."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / DATASET
    folder.mkdir()
    validated = [CASES[number::5] for number in range(5)]
    splits = [split([c for c in reversed(CASES) if c not in of], of) for of in validated]
    splits[3]["note"] = "of mine"
    (folder / "splits_final.json").write_text(json.dumps(splits))
    return folder


def splits_in(folder):
    return json.loads((folder / "splits_final.json").read_text())


def test_smaller_shares_lie_within_larger_ones_and_a_seed_says_which():
    drawn = nested_subsets(CASES, [5, 10, 50, 100], seed=0)
    assert [len(of) for of in drawn] == [1, 2, 11, 21]  # 1.05, 2.1, 10.5 (half a case is one), all
    assert set(drawn[0]) < set(drawn[1]) < set(drawn[2]) < set(drawn[3]) == set(CASES)
    assert nested_subsets(CASES[::-1], [5, 10, 50, 100], seed=0) == drawn
    assert nested_subsets(CASES, [10], seed=1) != drawn[1:2]
    assert [len(of) for of in nested_subsets(["one"], [1, 100], seed=0)] == [1, 1]
    # What a seed draws is in the files of users: it stays.
    assert nested_subsets([*"abcdefgh"], [25], seed=0) == [["c", "g"]]


def test_folds_are_appended_and_what_was_there_stays(folder):
    before = splits_in(folder)
    found = append_subsets(folder, [50, 10, 100])
    after = splits_in(folder)
    assert after[:5] == before
    assert [(of.fold, of.cases, of.share, of.is_new) for of in found] == [
        (5, 2, 10, True),
        (6, 8, 50, True),
        (0, 16, 100, False),
    ]
    assert [len(of["train"]) for of in after[5:]] == [2, 8]
    assert set(after[5]["train"]) < set(after[6]["train"]) < set(before[0]["train"])
    assert all(of["val"] == before[0]["val"] for of in after[5:])
    assert parts_of(after) == {5: 0, 6: 0}


def test_a_second_call_changes_nothing_and_other_shares_or_seeds_are_further_folds(folder):
    append_subsets(folder, [10, 50])
    file = folder / "splits_final.json"
    written = file.stat().st_mtime_ns, file.read_bytes()
    assert [of.fold for of in append_subsets(folder, [10, 50])] == [5, 6]
    assert (file.stat().st_mtime_ns, file.read_bytes()) == written
    assert [(of.fold, of.is_new) for of in append_subsets(folder, [25, 50])] == [
        (7, True),
        (6, False),
    ]
    assert [of.fold for of in append_subsets(folder, [50], seed=1)] == [8]
    assert [of.fold for of in append_subsets(folder, [50], fold=2)] == [9]
    splits = splits_in(folder)
    trained = [set(splits[number]["train"]) for number in (5, 7, 6)]
    assert trained[0] < trained[1] < trained[2]
    families = {of.whole: of.parts for of in families_of(splits)}
    assert families == {0: [5, 7, 6, 8], 1: [], 2: [9], 3: [], 4: []}


def test_two_shares_of_as_many_cases_are_one_fold(folder):
    assert [of.fold for of in append_subsets(folder, [1, 2, 99])] == [5, 5, 0]
    assert len(splits_in(folder)) == 6


def test_a_link_stays_one(folder, tmp_path):
    (folder / "splits_final.json").rename(tmp_path / "mine.json")
    (folder / "splits_final.json").symlink_to(tmp_path / "mine.json")
    append_subsets(folder, [50])
    assert (folder / "splits_final.json").is_symlink()
    assert len(json.loads((tmp_path / "mine.json").read_text())) == 6


@pytest.mark.parametrize(
    ("change", "fold", "said"),
    [
        (lambda splits: splits, 5, r"fold 5: .* has 5 splits \(0 to 4\)"),
        (lambda splits: splits, -1, r"fold -1: .* has 5 splits"),
        (lambda splits: [*splits, split(splits[0]["train"][:3], splits[0]["val"])], 5, "of fold 0"),
        (lambda splits: [*splits, split(["new"], splits[0]["val"])], 0, "folds 0, 5 .* mend"),
        (lambda splits: [split([], ["v"])], 0, "no case in 'train'"),
        (lambda splits: {}, 0, "a list of splits is expected"),
    ],
)
def test_what_is_no_whole_fold_is_refused_and_nothing_written(change, fold, said, folder):
    content = json.dumps(change(splits_in(folder)))
    (folder / "splits_final.json").write_text(content)
    with pytest.raises(UserError, match=said):
        append_subsets(folder, [10], fold=fold)
    assert (folder / "splits_final.json").read_text() == content


def test_a_file_that_another_one_writes_meanwhile_is_not_written_over(folder, monkeypatch):
    def draw(cases, shares, seed):
        (folder / "splits_final.json").write_text(json.dumps([*splits_in(folder), split("a", "b")]))
        return [["käse 01"]]

    monkeypatch.setattr(subsets, "nested_subsets", draw)
    with pytest.raises(UserError, match="changed by another process"):
        append_subsets(folder, [10])
    assert splits_in(folder)[5:] == [split("a", "b")]
    assert [file.name for file in folder.iterdir()] == ["splits_final.json"]


def test_the_command_says_what_to_train_next(folder, capsys):
    call(compare, "900", "--curve_splits", 10, 50, 100, "--fold", 2, "--seed", 3)
    printed = capsys.readouterr().out
    assert "splits_final.json: 2 folds appended" in printed
    assert "fold 5: 10 % of fold 2's training cases: 2\n" in printed
    assert "fold 2: 100 % of fold 2's training cases: 17 (was there)\n" in printed
    assert "for f in 5 6 2; do" in printed
    assert f"nnUNetv2_compare_vit {DATASET} --curve" in printed
    assert len(splits_in(folder)) == 7
    call(compare, "900", "--curve_splits", 10, "--fold", 2, "--seed", 3)
    assert "0 folds appended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--curve_splits", "0"], "above 0"),
        (["--curve_splits", "110"], "at most 100"),
        (["--curve_splits", "nan"], "percent of the training cases"),
        (["--curve_splits", "ten"], "invalid float"),
        (["--curve_splits", "10", "--seed", "-1"], "--seed -1"),
        (["--curve_splits", "10", "--curve", "--no-surface"], "leave --curve, --no-surface away"),
        (["--curve", "--seed", "1"], "--seed: of --curve_splits"),
        (["--fold", "1"], "--fold: of --curve_splits"),
        (["--curve", "--tolerance", "2"], "Dice alone"),
        (["--curve_splits", "10"], "has no splits_final.json yet"),
    ],
)
def test_mistakes_are_one_line(arguments, said, folder, capsys):
    (folder / "splits_final.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        call(compare, "900", *arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_preprocessed_data_the_variable_is_named(monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(SystemExit):
        call(compare, "900", "--curve_splits", "10")
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err
