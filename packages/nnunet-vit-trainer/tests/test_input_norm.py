"""What the network does to channels that nnU-Net normalised, or did not: never twice."""

import pytest

from nnunet_vit_trainer.config.input_statistics import IMAGENET, UNIT_RANGE_STATISTICS
from nnunet_vit_trainer.plans.input_norm import resolve_input_norm
from vit_backbone import UserError

Z, CT, RAW = "ZScoreNormalization", "CTNormalization", "NoNormalization"
UNIT = "RGBTo01Normalization"
INTENSITIES = {"0": {"mean": 100.0, "std": 20.0}, "1": {"mean": 5.0, "std": 2.0}}


@pytest.mark.parametrize("schemes", [[Z], [Z, Z, Z], [CT], [CT, Z]])
def test_auto_leaves_z_scored_channels_alone(schemes):
    norm, said = resolve_input_norm("auto", schemes, {})
    assert norm is None
    assert "z-scores" in said


def test_auto_gives_unit_range_channels_the_backbone_s_statistics():
    assert resolve_input_norm("auto", [UNIT] * 3, {})[0] == IMAGENET
    satellite, said = resolve_input_norm(
        "auto", [UNIT] * 3, {}, backbone_statistics=UNIT_RANGE_STATISTICS["dinov3_sat493m"]
    )
    assert satellite["mean"] == [0.430, 0.411, 0.296]
    assert "dinov3_sat493m" in said
    grey, _ = resolve_input_norm("auto", ["RescaleTo01Normalization"], {})
    assert grey["mean"] == [pytest.approx(sum(IMAGENET["mean"]) / 3)]


def test_auto_z_scores_raw_channels_and_says_so_per_channel():
    norm, said = resolve_input_norm("auto", [RAW, Z], INTENSITIES)
    assert norm == {"mean": [100.0, 0.0], "std": [20.0, 1.0]}
    assert "channel 0 raw" in said
    assert "channel 1 z-scored already" in said
    for unknown in ({}, {"0": {"mean": 1.0}}):
        with pytest.raises(UserError, match="no mean and std of raw channel 0; give none"):
            resolve_input_norm("auto", [RAW, Z], unknown)


def test_a_raw_channel_of_one_value_is_not_blown_up():
    """Such as a mask that holds all foreground: outside of it 0 would become -1e8."""
    norm, _ = resolve_input_norm("auto", [RAW], {"0": {"mean": 1.0, "std": 0.0}})
    assert norm == {"mean": [1.0], "std": [1.0]}


@pytest.mark.parametrize("of", ["mean", "std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_raw_channels_with_infinite_pixels_are_refused(of, value):
    intensities = {"0": {"mean": 1.0, "std": 1.0} | {of: value}}
    with pytest.raises(UserError, match="of raw channel 0 are not finite: an image holds NaN"):
        resolve_input_norm("auto", [RAW, Z], intensities)
    assert resolve_input_norm("auto", [Z], intensities)[0] is None
    assert resolve_input_norm("none", [RAW], intensities)[0] is None


@pytest.mark.parametrize(
    ("choice", "schemes"),
    [
        ("imagenet", [Z] * 3),
        ("visionfm_fundus", [CT] * 3),
        ("meddinov3_ct", [CT]),
        ("meddinov3_ct", [UNIT]),
        ("imagenet", [RAW] * 3),
    ],
)
def test_statistics_for_another_range_are_refused(choice, schemes):
    with pytest.raises(UserError, match="normalise twice"):
        resolve_input_norm(choice, schemes, {})


def test_named_statistics():
    fundus, _ = resolve_input_norm("visionfm_fundus", [UNIT] * 3, {})
    assert fundus["std"] == [0.29483, 0.20167, 0.13668]
    ct, _ = resolve_input_norm("meddinov3_ct", [RAW], {})
    assert ct == {"mean": [65.108], "std": [178.017], "clamp": [-1000.0, 1000.0]}


def test_own_statistics():
    assert resolve_input_norm({"mean": [1], "std": [2]}, [Z], {})[0] == {
        "mean": [1.0],
        "std": [2.0],
    }
    for wrong in ({"mean": [1]}, {"mean": [1, 2], "std": [1, 1]}, {"mean": [0], "std": [0]}):
        with pytest.raises(UserError, match="input_norm"):
            resolve_input_norm(wrong, [Z], {})
