"""Learning curves of written results: what counts, what is left out and said, what is drawn."""

import csv
import io
import json
import math
import re

import matplotlib.image
import pytest
from fake_results import STOCK, stock_plans, write_fold, write_log, write_model
from trained_results import DATASET, call

from nnunet_vit_trainer.commands.compare import compare
from nnunet_vit_trainer.results.comparison.collect import collect
from nnunet_vit_trainer.results.comparison.tables import notes_of
from nnunet_vit_trainer.results.curve.collect import collect_curves
from nnunet_vit_trainer.results.curve.tables import curve_tables_of
from nnunet_vit_trainer.results.subsets import append_subsets
from vit_backbone import UserError

OURS = "nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_my__2d"
PLAIN = "nnUNetTrainer__nnUNetPlans_plain__2d"
CASES = [f"c{i:02d}" for i in range(24)]
VALIDATION = CASES[20:]
PARTS = {1: 2, 2: 5, 3: 10, 4: 2}  # fold -> cases; fold 4 is of another seed


def validated(model, fold, dice, cases=VALIDATION, trained=None):
    """Write a validated fold whose log tells how many cases it was trained on."""
    folder = write_fold(model, fold, {case: [dice - 0.1, dice + 0.1] for case in cases})
    write_log(folder, "2026_1_1_10_00_00", (0, 1))
    if trained is not None:
        (log,) = folder.glob("training_log_*")
        said = f"This split has {trained} training and 4 validation cases. \n"
        log.write_text(said + log.read_text())
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two curves of fold 0, one of them without its last part, and a result of whole folds."""
    for name in ("results", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    preprocessed = tmp_path / "preprocessed" / DATASET
    preprocessed.mkdir(parents=True)
    whole = [{"train": CASES[:20], "val": VALIDATION}]
    (preprocessed / "splits_final.json").write_text(json.dumps(whole))
    append_subsets(preprocessed, [10, 25, 50])
    append_subsets(preprocessed, [10], seed=1)
    stock = write_model(tmp_path / "results")
    ours = write_model(tmp_path / "results", OURS, stock_plans() | {"vit": {}})
    for fold, count in {0: 20, **PARTS}.items():
        validated(stock, fold, 0.2 + count / 100 + fold / 1000, trained=count)
        if fold != 3:
            validated(ours, fold, 0.6 + fold / 1000, trained=count)
    validated(write_model(tmp_path / "results", PLAIN), 0, 0.9)
    return tmp_path


def table(found, title):
    return next(table for table in curve_tables_of(found) if title in table.title)


def test_results_stand_beside_each_other_by_the_number_of_training_cases(home):
    found = collect_curves("900")
    assert [result.name for result in found.results] == [OURS, STOCK]
    (curve,) = found.curves
    assert (curve.whole, curve.validated, curve.counts()) == ("0", 4, [2, 5, 10, 20])
    dice = table(found, "Dice on fold 0's 4 validation cases")
    assert dice.header == ["", "folds", *(f"{n} cases, {5 * n} %" for n in (2, 5, 10, 20))]
    assert dice.rows == [
        ["1", "0-2 4", "0.603 ±0.002 (2)", "0.602 (1)", "-", "0.600 (1)"],
        ["2", "0-4", "0.223 ±0.002 (2)", "0.252 (1)", "0.303 (1)", "0.400 (1)"],
    ]
    (row,) = table(found, "Difference to 2").rows  # stock's, not the best
    assert row == ["1", "0-2 4", "+0.380 ±0.000 (2)", "+0.350 (1)", "-", "+0.200 (1)"]


def test_what_is_missing_is_said(home):
    notes = "\n".join(collect_curves("900").notes)
    assert "1: without fold 3 (10 cases)" in notes
    assert f"{PLAIN}: left out, it has no fold on a part of the cases" in notes
    assert "2:" not in notes


@pytest.mark.parametrize(
    ("fold", "written", "said"),
    [
        (7, {}, r"fold 7: left out, splits_final.json has no such split \(0 to 4\)"),
        (3, {"cases": CASES[19:]}, "fold 3: left out, it was validated on other cases"),
        (3, {"trained": 9}, "fold 3: left out, it was trained on 9 cases by its log, .* has 10"),
    ],
)
def test_a_fold_of_another_split_than_todays_is_left_out_and_said(fold, written, said, home):
    validated(home / "results" / DATASET / OURS, fold, 0.99, **written)
    found = collect_curves("900")
    assert "10 cases" in table(found, "Dice").header[4]
    assert table(found, "Dice").rows[0][4] == "-"
    assert len([note for note in found.notes if re.search(f"1: {said}", note)]) == 1


def test_the_log_of_the_last_training_counts(home):
    fold = validated(home / "results" / DATASET / OURS, 3, 0.7, trained=9)
    (fold / "training_log_2026_1_1_11_00_00.txt").write_text(
        "This split has 10 training and 4 validation cases. \nEpoch 0 \nEpoch time: 1.0 s \n"
    )
    (fold / "training_log_2026_1_1_12_00_00.txt").write_text(
        "This split has 11 training and 4 validation cases. "
    )
    assert table(collect_curves("900"), "Dice").rows[0][4] == "0.700 (1)"


def test_folds_that_validate_alike_but_train_on_others_are_left_out_and_said(home):
    file = home / "preprocessed" / DATASET / "splits_final.json"
    splits = [*json.loads(file.read_text()), {"train": ["other"], "val": VALIDATION}]
    file.write_text(json.dumps(splits))
    found = collect_curves("900")
    assert "5" not in found.curves[0].trained
    assert any(note.startswith("fold 5 validates as fold 0 does") for note in found.notes)


def test_the_plain_comparison_leaves_parts_out_and_says_so(home):
    found = collect("900", tolerance=None)
    assert all([*result.dice] == ["0"] for result in found.results)
    notes = notes_of(found)
    assert "3: fold 1, 2, 3, 4: left out, trained on a part of another fold's cases (--curve)" in (
        notes
    )
    assert not any("missing: fold" in note for note in notes)


def test_reports_hold_every_fold_in_full(home, tmp_path, capsys):
    files = {"--csv": "a b.csv", "--markdown": "ü.md", "--plot": "c.png"}
    options = [word for option, name in files.items() for word in (option, tmp_path / name)]
    call(compare, "900", "--curve", *options, "--against", "_my__")
    printed = capsys.readouterr().out
    assert "Difference to 1" in printed
    assert max(map(len, printed.splitlines())) <= 80
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a b.csv").read_text())))
    assert len(rows) == 9
    assert rows[0]["plans"] == "nnUNetPlans_my"
    assert [rows[0][n] for n in ("whole fold", "fold", "training cases", "percent")] == [
        "0",
        "1",
        "2",
        "10.0",
    ]
    assert math.isclose(float(rows[0]["dice"]), 0.601)
    assert "| 1 | 0-2 4 | 0.603 ±0.002 (2) |" in (tmp_path / "ü.md").read_text()
    assert matplotlib.image.imread(tmp_path / "c.png").std() > 0


def test_without_stock_the_best_is_compared_with(home):
    (home / "results" / DATASET / STOCK).rename(home / "away")
    assert collect_curves("900").against.name == OURS


def test_a_result_to_compare_with_that_is_left_out_is_told_why(home):
    with pytest.raises(UserError, match=f"--against {PLAIN}: it has no fold on a part"):
        collect_curves("900", against="plain")
    with pytest.raises(UserError, match="names no result"):
        collect_curves("900", against="nothing")


def test_where_there_are_no_parts_the_command_that_makes_them_is_told(home):
    file = home / "preprocessed" / DATASET / "splits_final.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:1]))
    with pytest.raises(UserError, match=r"nnUNetv2_compare_vit .* --curve_splits 10 25 50"):
        collect_curves("900")
    file.unlink()
    with pytest.raises(UserError, match=r"--curve_splits 10 25 50"):
        collect_curves("900")


def test_where_no_part_is_trained_they_are_named(home):
    for name in (STOCK, OURS):
        (home / "results" / DATASET / name).rename(home / name)
    with pytest.raises(UserError, match=r"no result is validated on fold 1, 4, 2, 3 of Dataset900"):
        collect_curves("900")
