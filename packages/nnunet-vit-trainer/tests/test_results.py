"""What is read of results: their folds, their logs, and what their networks cost."""

import json
import math

import pytest
import torch
from fake_results import stock_plans, write_fold, write_log, write_model
from trained_results import DATASET_JSON, write_results

from nnunet_vit_trainer.results.costs import costs_of
from nnunet_vit_trainer.results.folds import (
    class_keys,
    folds_in,
    read_dice,
    read_summary,
    refuse_alike,
)
from nnunet_vit_trainer.results.spread import dice_by_class, spread_of
from nnunet_vit_trainer.results.training_log import read_training
from nnunet_vit_trainer.training.oversight.peak import peak_line
from vit_backbone import UserError


def test_folds_are_found_by_number_and_say_how_far_they_got(tmp_path):
    model = write_model(tmp_path)
    for number in ("10", "2", "all"):
        write_fold(model, number, {"a": [0.5, 0.5]})
    (model / "fold_3").mkdir()
    (model / "fold_old").mkdir()
    (model / "fold_4").write_text("no folder")
    folds = folds_in(model)
    assert [fold.name for fold in folds] == ["2", "3", "10", "all"]
    assert [fold.is_finished for fold in folds] == [True, False, True, True]
    assert [fold.is_validated for fold in folds] == [True, False, True, True]


def test_folds_that_validated_the_same_cases_are_no_ensemble(tmp_path):
    model = write_model(tmp_path)
    for number, cases in (("0", "ab"), ("1", "cd"), ("5", "ba"), ("6", "bd"), ("all", "abcd")):
        write_fold(model, number, {case: [0.5, 0.5] for case in cases})
    (model / "fold_7").mkdir()
    (write_fold(model, 8, {}) / "validation" / "summary.json").write_text("half writ")
    refuse_alike(model, [0, "1", "6", "7", "8", "all"])
    with pytest.raises(UserError, match=r"folds 0, 5 of .* validated the same cases.*-f"):
        refuse_alike(model, ["0", "1", "5"])


def test_the_dice_of_a_case_is_found_by_its_file_whatever_system_wrote_the_path():
    case = {"metrics": {"1": {"Dice": 0.5}, "(1, 2)": {"Dice": math.nan}, "3": {"Dice": None}}}
    cases = [case | {"reference_file": path} for path in ("/a b/c.nii.gz", "D:\\x\\ü.nii.gz")]
    dice, _ = read_summary(json.dumps({"metric_per_case": cases}), "summary.json")
    assert list(dice) == ["c.nii.gz", "ü.nii.gz"]
    assert dice["c.nii.gz"]["1"] == 0.5
    assert math.isnan(dice["c.nii.gz"]["(1, 2)"])
    assert math.isnan(dice["c.nii.gz"]["3"])
    assert dice_by_class(dice)["1"] == 0.5
    assert math.isnan(dice_by_class(dice)["3"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"metric_per_case": [{"metrics": 3}]}', "{"])
def test_what_is_no_summary_is_one_line(text):
    with pytest.raises(UserError, match=r"fold 0: summary\.json"):
        read_summary(text, "fold 0: summary.json")


def test_the_dice_of_one_checkpoint_is_not_taken_for_anothers():
    final, best = "checkpoint_final.pth", "checkpoint_best.pth"
    of_best = json.dumps({"metric_per_case": [], "vit_checkpoint": best})
    assert read_dice('{"metric_per_case": []}', "s", final) == {}
    cases = [{"reference_file": f"{n}.png", "metrics": {"1": {}} if n else {}} for n in range(2)]
    with pytest.raises(UserError, match="s is damaged: its cases do not all have the same classes"):
        read_dice(json.dumps({"metric_per_case": cases}), "s", final)
    assert read_dice(of_best, "s", best) == {}
    with pytest.raises(UserError, match=f"s is of '{best}', not of {final}"):
        read_dice(of_best, "s", final)
    with pytest.raises(UserError, match=f"s is of '{final}', not of {best}"):
        read_dice('{"metric_per_case": []}', "s", best)


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ({"background": 0, "a": 1, "ignore": 2}, {"1": "a"}),
        ({"background": 0, "a": [1], "b": 2}, {"1": "a", "2": "b"}),
        ({"background": 0, "whole": [1, 2], "core": 2}, {"(1, 2)": "whole", "2": "core"}),
        ({"background": 0, "whole": [1, 2], "core": [2]}, {"(1, 2)": "whole", "(2,)": "core"}),
    ],
)
def test_classes_and_regions_have_the_names_of_the_data_set(labels, keys):
    assert class_keys({"labels": labels}) == keys


def test_of_one_value_there_is_no_spread():
    assert spread_of([0.5, math.nan]).text() == "0.500"
    assert spread_of([0.4, 0.6]).text() == "0.500 ±0.141"
    assert spread_of([]).text() == "-"


def test_an_epoch_that_was_trained_twice_counts_once(tmp_path):
    """A killed run had trained beyond its last checkpoint, from which the next one went on."""
    fold = write_fold(write_model(tmp_path), 0, {})
    write_log(fold, "2026_9_30_09_05_00", (0, 100), (1, 100), (2, 100), (3, None))
    write_log(fold, "2026_10_2_09_05_00", (2, 50), (3, 70))  # September sorts behind October
    (fold / "training_log_notes.txt").write_text("Epoch 9\nEpoch time: 9 s")
    assert read_training(fold).hours == pytest.approx(320 / 3600)


def test_a_run_that_began_anew_forgets_the_longer_one_before(tmp_path):
    fold = write_fold(write_model(tmp_path), 0, {})
    write_log(fold, "2026_1_1_10_00_00", (0, 100), (1, 100), (2, 100))
    write_log(fold, "2026_1_1_11_00_00", (0, 10), (1, 10))
    assert read_training(fold).hours == pytest.approx(20 / 3600)


def test_where_a_log_is_missing_there_are_no_hours(tmp_path):
    fold = write_fold(write_model(tmp_path), 0, {})
    assert read_training(fold).hours is None
    write_log(fold, "2026_1_1_10_00_00", (5, 10), (6, 10))
    assert read_training(fold).hours is None


def test_the_highest_memory_that_was_logged_counts(tmp_path):
    fold = write_fold(write_model(tmp_path), 0, {})
    assert read_training(fold).gibibytes is None
    log = fold / "training_log_2026_1_1_10_00_00.txt"
    log.write_bytes(b"\xff\xfe half a line\n x: Peak memory: 3.5 GiB \n y: Peak memory: 2 GiB\n")
    assert read_training(fold).gibibytes == 3.5


def test_the_memory_that_our_trainer_logs_is_read(tmp_path):
    fold = write_fold(write_model(tmp_path), 0, {})
    log = fold / "training_log_2026_1_1_10_00_00.txt"
    log.write_text(f"2026-01-01 10:00:00.1: {peak_line(torch.device('cpu'))} \n")
    assert read_training(fold).gibibytes > 0.01
    log.write_text(f"2026-01-01 10:00:00.1: {peak_line(torch.device('mps'))} \n")
    assert read_training(fold).gibibytes is None


def test_stock_networks_are_counted_without_computing_anything():
    costs = costs_of(stock_plans(), DATASET_JSON, "nnUNetTrainer", "2d")
    assert costs.tile == (32, 32)
    convolutions = 4 * 9 + 4 + 4 * 8 * 9 + 8 + 8 * 4 * 9 + 4  # its encoder, its decoder's last
    assert costs.trained > convolutions
    assert costs.flop > 2 * 32 * 32 * 9 * 4


def test_adapters_count_as_trained_after_they_were_merged_too(exporter):
    folder = write_results(exporter, "counted")
    plans = json.loads((folder / "plans.json").read_text())
    whole = costs_of(plans, DATASET_JSON, "any", "2d")
    assert 0 < whole.trained < 100_000
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["use_lora"] = False
    merged = costs_of(plans, DATASET_JSON, "any", "2d")
    assert merged.trained == whole.trained
    assert merged.flop < whole.flop


def test_a_network_that_cannot_be_built_is_one_line():
    with pytest.raises(UserError, match=r"not counted.*nnUNetTrainer_of_mine"):
        costs_of(stock_plans(), DATASET_JSON, "nnUNetTrainer_of_mine", "2d")


def test_labels_that_are_no_mapping_are_one_line():
    with pytest.raises(UserError, match=r"dataset\.json: labels .* a mapping"):
        class_keys({"labels": ["background", "tumour"]})


@pytest.mark.parametrize("dice", ["1e999", "-1e999", f"1{'0' * 400}", "null", '"0.5"'])
def test_a_dice_that_is_no_finite_number_is_none(dice):
    """JSON has no infinity, but Python reads some numbers as one."""
    text = '{"metric_per_case": [{"reference_file": "a.png", "metrics": {"1": {"Dice": HERE}}}]}'
    found, _ = read_summary(text.replace("HERE", dice), "summary.json")
    assert math.isnan(found["a.png"]["1"])
