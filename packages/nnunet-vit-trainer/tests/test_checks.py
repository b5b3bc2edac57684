"""What is checked of a run before any work, beside its data set and its stop file."""

import json

import pytest

from nnunet_vit_trainer.launch.checks import (
    check_channels,
    check_checkpoints,
    check_fold,
    check_tile,
    first_fold,
    parse_fold,
)
from vit_backbone import UserError


@pytest.mark.parametrize(
    ("tile", "strides", "said"),
    [
        ((1, 96), None, "1x96 px .* blurs tiles, so each side needs 4"),
        ((96, 3), None, "96x3 px .* each side needs 4"),
        ((7, 40), [1, 2, 2, 4, 1], "targets of 1/16 of it, so each side needs 9"),
        ((8, 40), [1, 2, 2, 4, 1], "needs 9"),
        ((4, 40), [1, 2, 2, 2, 1], "targets of 1/8 of it, so each side needs 5"),
    ],
)
def test_a_tile_that_is_too_thin_is_refused(tile, strides, said):
    with pytest.raises(UserError, match=said):
        check_tile(tile, strides and [[stride, stride] for stride in strides])


def test_other_tiles_are_taken():
    check_tile((4, 4), None)
    check_tile((9, 9), [[1, 1], [2, 2], [2, 2], [4, 4], [1, 1]])
    check_tile((5, 9), [[1, 1], [2, 2], [2, 2], [2, 2], [1, 1]])


def test_no_run_without_checkpoints_is_validated_beside_anothers(tmp_path):
    check_checkpoints(tmp_path / "fold_0")
    (tmp_path / "checkpoint_final.pth").touch()
    with pytest.raises(UserError, match=f"{tmp_path} holds checkpoints, which --disable"):
        check_checkpoints(tmp_path)


def test_channels_of_any_names_are_counted():
    check_channels({"0": "R"}, ["ZScoreNormalization"])
    with pytest.raises(UserError, match=r"names 2 channels \(1, 2\), the plans have 1"):
        check_channels({"0": 1, "1": 2}, ["ZScoreNormalization"])


@pytest.mark.parametrize(("cases", "fold"), [(1, "all"), (4, "all"), (5, "0")])
def test_the_fold_that_is_proposed_is_one_that_a_start_takes(cases, fold, tmp_path):
    (tmp_path / "data").mkdir()
    for case in range(cases):
        (tmp_path / "data" / f"c{case}.pkl").touch()
    assert first_fold(tmp_path, cases) == fold
    check_fold(parse_fold(fold), tmp_path, "data")
    if fold == "all":
        with pytest.raises(UserError, match="cannot be split into 5 folds; train fold 'all'"):
            check_fold(0, tmp_path, "data")
    splits = [{"train": ["c0"], "val": ["c0"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    assert first_fold(tmp_path, cases) == "0"
    check_fold(0, tmp_path, "data")
