"""Results of one data set beside each other: what is compared, and what is only told."""

import csv
import io
import json
import math

import matplotlib.image
import pytest
from fake_results import STOCK, stock_plans, write_fold, write_log, write_model
from rich.console import Console
from trained_results import DATASET, DATASET_JSON, call, write_results

from nnunet_vit_trainer.commands.compare import compare
from nnunet_vit_trainer.results.comparison.collect import collect
from nnunet_vit_trainer.results.comparison.page import print_comparison
from nnunet_vit_trainer.results.comparison.paired import compare_pairs, holm
from nnunet_vit_trainer.results.comparison.reports import csv_of, markdown_of
from nnunet_vit_trainer.results.comparison.result import Result
from nnunet_vit_trainer.results.comparison.tables import notes_of, tables_of
from vit_backbone import UserError

CASES = [f"case_{i:02d}" for i in range(12)]
BETTER, LONGER = "nnUNetTrainer__nnUNetPlans_better__2d", "nnUNetTrainerLonger__nnUNetPlans__2d"


def of_cases(*classes, cases=CASES):
    """Give every case other values near these."""
    return {c: [v and v + i / 1000 for v in classes] for i, c in enumerate(cases)}


@pytest.fixture(scope="module")
def results(exporter, tmp_path_factory):
    """One of ours without a Dice, and four of stock nnU-Net, one of them by no known trainer."""
    home = tmp_path_factory.mktemp("compared")
    (home / "preprocessed" / DATASET).mkdir(parents=True)
    splits = [{"train": [], "val": []}] * 3
    (home / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    stock = write_model(home / "results")
    write_log(write_fold(stock, 0, of_cases(0.5, 0.7)), "2026_1_1_10_00_00", (0, 1800), (1, 1800))
    write_fold(stock, 1, of_cases(0.6, 0.8))
    write_fold(stock, "all", of_cases(0.99, 0.99))
    better = write_model(home / "results", BETTER)
    write_fold(better, 0, of_cases(0.8, None))
    write_fold(better, 1, of_cases(0.9, 0.9, cases=["other"]))
    (better / "fold_2").mkdir()
    write_fold(write_model(home / "results", LONGER), 0, of_cases(0.4, 0.6), finished=False)
    (home / "results" / DATASET / "ensembles").mkdir()
    (home / "results" / DATASET / "nnUNetTrainer__nnUNetPlans__failed").mkdir()
    exporter_results = write_results(exporter, "compared")
    exporter_results.rename(home / "results" / DATASET / exporter_results.name)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("results", "preprocessed"):
            patch.setenv(f"nnUNet_{name}", str(home / name))
        yield home


@pytest.fixture(scope="module")
def found(results):
    return collect("900", tolerance=None)


def table(found, title):
    return next(table for table in tables_of(found) if title in table.title)


def test_every_result_has_a_row_the_best_first_and_those_without_dice_last(found):
    assert [result.name for result in found.results] == [
        BETTER,
        STOCK,
        LONGER,
        "nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_compared__2d",
    ]
    dice = table(found, "Dice, mean")
    assert dice.header == ["", "folds", "mean", "a", "b"]
    assert dice.rows[1] == ["2", "0 1", "0.655 ±0.071", "0.555 ±0.071", "0.755 ±0.071"]
    assert dice.rows[3] == ["4", "-", "-", "-", "-"]


def test_a_result_whose_dice_are_all_of_nothing_is_not_the_best(results, tmp_path, monkeypatch):
    """nnU-Net writes NaN where neither mask has a class."""
    nothing = write_model(tmp_path, "nnUNetTrainer__nnUNetPlans_a__2d")
    write_fold(nothing, 0, of_cases(None, None))
    better = write_fold(write_model(tmp_path, BETTER), 0, of_cases(0.9, 0.9))
    summary = better / "validation" / "summary.json"
    said = {"vit_checkpoint": "checkpoint_best.pth"}
    summary.write_text(json.dumps(json.loads(summary.read_text()) | said))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    found = collect("900", tolerance=None)
    assert [result.name for result in found.results] == [BETTER, nothing.name]
    assert found.against.name == BETTER
    assert "1: fold 0: validated with checkpoint_best.pth" in "\n".join(notes_of(found))


def test_a_result_without_a_mapping_of_labels_is_left_out(results, tmp_path, monkeypatch):
    listed = write_model(tmp_path, dataset=DATASET_JSON | {"labels": ["background", "a", "b"]})
    for model in (listed, write_model(tmp_path, BETTER)):
        write_fold(model, 0, of_cases(0.9, 0.9))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    found = collect("900", tolerance=None)
    assert [result.name for result in found.results] == [BETTER]
    assert any(f"{STOCK} is left out: dataset.json: labels" in note for note in notes_of(found))


def test_a_result_of_another_name_is_told(tmp_path, monkeypatch):
    for name in (STOCK, "nnUNetTrainer__my__plans__2d"):
        write_fold(write_model(tmp_path, name), 0, of_cases(0.9, 0.9))
    (tmp_path / DATASET / "masks").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    found = collect("900", tolerance=None)
    assert [result.name for result in found.results] == [STOCK]
    (note,) = (note for note in notes_of(found) if "left out" in note)
    assert note.startswith("nnUNetTrainer__my__plans__2d is left out: its name is not <trainer>__")


def test_a_run_that_failed_as_it_began_is_no_broken_result(tmp_path, monkeypatch):
    for name in (STOCK, BETTER):
        write_fold(write_model(tmp_path, name), 0, of_cases(0.9, 0.9))
    refused = write_model(tmp_path, "nnUNetTrainer__nnUNetPlans_refused__2d")
    (refused / "dataset.json").unlink()
    (refused / "fold_0").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    said = f"{refused.name} is left out: nothing was trained there"
    assert any(note.startswith(said) for note in notes_of(collect("900", tolerance=None)))
    (refused / "fold_0" / "checkpoint_best.pth").touch()
    said = f"{refused.name} is left out: {refused}"[:60]
    assert any(note.startswith(said) for note in notes_of(collect("900", tolerance=None)))


def test_an_unreadable_validation_is_no_missing_one(tmp_path, monkeypatch):
    for name in (STOCK, BETTER):
        write_fold(write_model(tmp_path, name), 0, of_cases(0.9, 0.9))
    (tmp_path / DATASET / BETTER / "fold_0" / "validation" / "summary.json").write_text("{")
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    with pytest.raises(UserError, match=r"summary\.json cannot be read as JSON"):
        collect("900", against=BETTER, tolerance=None)


def test_costs_are_told_for_ours_and_stock_and_are_not_invented(found):
    rows = table(found, "Costs").rows
    assert rows[1][1].endswith(" M")
    assert rows[1][2:] == ["32x32", rows[1][3], "1.00", "-", "2"]
    assert rows[2][1:] == ["-"] * 6  # an unknown trainer, not finished, no logs
    assert float(rows[3][3]) > 0


def test_what_is_missing_or_left_out_is_told(found):
    notes = "\n".join(notes_of(found))
    assert "1: missing" not in notes  # its fold 2 is there, but
    assert "1: not trained to the end: fold 2" in notes
    assert "1: fold 0: no case has b" in notes
    assert "2: fold all is left out" in notes
    assert "2: missing: fold 2" in notes
    assert "3: its network is not counted: trainer " in notes
    assert "/site-packages/" not in notes
    assert "4: not read: fold 0: summary.json" in notes
    assert "2: fold 1 has other cases: not tested" in notes
    assert "nnUNetPlans__failed is left out" in notes
    assert "not all have the same folds" in notes


def test_a_paired_test_is_over_the_folds_with_the_same_cases(found):
    pair = next(pair for pair in found.pairs if pair.name == STOCK)
    assert (pair.folds, pair.other_folds, pair.cases) == (["0"], ["1"], 12)
    assert pair.left_out == 12  # class b, which the other one has in no case
    assert pair.difference == pytest.approx(-0.3)
    assert pair.p == pytest.approx(2 / 2**12)  # all twelve differ in one direction
    assert pair.holm == pytest.approx(4 / 2**12)


def results_of(*dice):
    return [Result(str(i), None, {}, {}, dice={"0": cases}) for i, cases in enumerate(dice)]


def test_what_neither_mask_holds_is_left_out_of_both():
    cases = {"x": {"a": 0.5, "b": math.nan}, "y": {"a": math.nan, "b": math.nan}}
    other = {"x": {"a": 0.4, "b": 0.0}, "y": {"a": 0.3, "b": 0.2}}
    (pair,) = compare_pairs(results := results_of(other, cases), results[1])
    assert (pair.cases, pair.left_out) == (1, 3)
    assert pair.difference == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.01] * 4 + [0.0] * 16, 2 / 2**4),  # ties and zeros
        ([0.01, 0.02, 0.03, 0.04] + [0.0] * 16, 2 / 2**4),
        ([0.01, 0.01, 0.01, -0.01] + [0.0] * 10, 10 / 2**4),
    ],
)
def test_where_many_cases_are_equal_the_test_is_exact(differences, p):
    first, second = (
        {str(i): {"a": value if own else 0.0} for i, value in enumerate(differences)}
        for own in (True, False)
    )
    results = results_of(first, second)
    (pair,) = compare_pairs(results, results[1])
    assert pair.cases == len(differences)
    assert pair.p == pytest.approx(p)


def test_distances_are_told_though_the_best_results_reader_is_not_installed(results, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(tmp_path))
        for name, plans in (("unknown", {"image_reader_writer": "Gone"}), ("none", {})):
            rest = {k: v for k, v in stock_plans().items() if k != "image_reader_writer"}
            model = write_model(tmp_path, f"nnUNetTrainer__{name}__2d", rest | plans)
            write_fold(model, 0, of_cases(0.9, 0.9))
        first = collect("900", tolerance=None)
        assert first.unit == "mm"
        assert sum("its images' reader is not known here" in n for n in notes_of(first)) == 2
        write_fold(write_model(tmp_path), 0, of_cases(0.1, 0.1))
        assert collect("900", tolerance=None).unit == "px"


def test_equal_results_do_not_differ_and_without_cases_there_is_no_test():
    equal = {"x": {"a": 0.5}, "y": {"a": 0.6}}
    first, *_ = results = results_of(equal, equal, {"z": {"a": 0.1}})
    same, other = compare_pairs(results, first)
    assert (same.p, same.holm, same.difference) == (1.0, 1.0, 0.0)
    assert (other.cases, other.other_folds) == (0, ["0"])
    assert math.isnan(other.p)
    assert math.isnan(other.holm)


def test_holms_correction_keeps_the_order_and_leaves_what_was_not_tested():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([math.nan, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1] == 0.02
    assert holm([]) == []


def test_the_page_fits_80_columns_with_many_classes(found, monkeypatch):
    names = [f"{'long name of ' * 2}{i}" for i in range(9)]
    result = found.results[1]
    wide = {f: {c: dict.fromkeys(names, 0.5) for c in v} for f, v in result.dice.items()}
    monkeypatch.setattr(result, "dice", wide)
    text = io.StringIO()
    print_comparison(found, Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("folds" in line for line in lines) > 3  # the first columns stand in every part
    assert text.getvalue().count("0.500 ±0.000") == 10


def test_reports_hold_what_the_page_does(found):
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))
    assert [row["plans"] for row in rows][:2] == ["nnUNetPlans_better", "nnUNetPlans"]
    assert float(rows[1]["dice a mean"]) == pytest.approx(0.5555)
    assert rows[0]["dice b spread"] == rows[2]["gflop"] == rows[3]["dice mean"] == ""
    assert rows[1]["against"] == BETTER
    assert int(rows[1]["trained parameters"]) > 0
    markdown = markdown_of(found)
    assert f"2. `{STOCK}`" in markdown
    assert "| 2 | 0 1 | 0.655 ±0.071 |" in markdown


def test_the_command_writes_reports_over_old_ones(results, tmp_path, capsys):
    files = {"--csv": "a b.csv", "--markdown": "ü.md", "--plot": "c.png"}
    for name in files.values():
        (tmp_path / name).write_text("old")
    options = [word for option, name in files.items() for word in (option, tmp_path / name)]
    call(compare, DATASET, "--no-surface", "--against", "_better_", *options)
    printed = capsys.readouterr().out
    assert f"{DATASET}: 4 results" in printed
    assert "against 1" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert (tmp_path / "a b.csv").read_text().startswith("dataset,trainer")
    assert matplotlib.image.imread(tmp_path / "c.png").std() > 0
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["900", "--against", "nothing"], "names no result"),
        (["900", "--against", "nnUNetPlans"], "names several results"),
        (["900", "--against", "compared"], "nothing to compare with: "),
        (["901"], "dataset 901 is not in"),
        (["900", "--plot", "a.txt"], "ends in"),
        (["900", "--csv", "no/such/folder.csv"], "there is no folder"),
        (["900", "--csv", "."], "is a folder"),
        (["900", "--csv", "a.txt", "--markdown", "./a.txt"], "give each its name"),
        (["900", "--curve"], "leave --no-surface away"),
        (["900", "--tolerance", "-1"], "above 0"),
        (["900", "--tolerance", "nan"], "above 0"),
    ],
)
def test_mistakes_are_one_line(arguments, message, results, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(compare, *arguments, "--no-surface")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_data_set_without_results_is_one_line(tmp_path, monkeypatch):
    (tmp_path / DATASET).mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    with pytest.raises(UserError, match="holds no results"):
        collect("900", tolerance=None)
