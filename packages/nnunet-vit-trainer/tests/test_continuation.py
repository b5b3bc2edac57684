"""Results are continued across releases, whose plans record more, or fewer, options."""

import copy
from pathlib import Path

import pytest

from nnunet_vit_trainer.config.schema import ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from nnunet_vit_trainer.plans.continuation import leave_unnamed, refuse_other_model
from nnunet_vit_trainer.plans.derive import derive_plans
from vit_backbone import UserError

SETTINGS = {
    "data_identifier": "nnUNetPlans_2d",
    "patch_size": [40, 56],
    "batch_size": 12,
    "normalization_schemes": ["ZScoreNormalization"],
}
PLANS = {
    "dataset_name": "Dataset001_A",
    "plans_name": "nnUNetPlans",
    "configurations": {"2d": SETTINGS},
}


def factory(*, backbone_options=None, width: int = 3, norm: str = "group", **unknown): ...


@pytest.fixture(autouse=True)
def head(monkeypatch):
    monkeypatch.setattr("vit_backbone.find_head", lambda name: factory)


@pytest.fixture
def plans():
    config = ViTnnUNetConfig(ViTModelConfig(layer_indices=[0, 1, 2, 3]), train=ViTTrainConfig())
    backbone = {"asked": "test_vit", "name": "test_vit", "options": {}}
    made = derive_plans(PLANS, "2d", "mine", config, backbone, {"file": "a.pth", "sha256": "1"})
    made["vit"]["data"] = {"cases": 3, "channel_names": {"0": "T1"}}
    return made


def arguments(plans):
    return plans["configurations"]["2d"]["architecture"]["arch_kwargs"]


def goes_on(ours, theirs):
    refuse_other_model(ours, theirs, Path("results"))
    return True


def test_a_recipe_of_an_earlier_release_goes_on(plans):
    earlier = copy.deepcopy(plans)
    for key in ("ema", "accumulate_steps", "lr_schedule", "amp_dtype"):
        del earlier["vit"]["train"][key]
    assert goes_on(plans, earlier)
    plans["vit"]["train"]["lr_schedule"] = "cosine"
    with pytest.raises(UserError, match=r"train\.lr_schedule was 'poly' and is now 'cosine'"):
        goes_on(plans, earlier)


def test_a_head_of_an_earlier_release_goes_on(plans):
    earlier = copy.deepcopy(plans)
    del arguments(earlier)["norm"]
    assert goes_on(plans, earlier)
    arguments(plans)["norm"] = "batch"
    with pytest.raises(UserError, match=r"arch_kwargs\.norm was 'group' and is now 'batch'"):
        goes_on(plans, earlier)


@pytest.mark.parametrize("off", [None, False, 0, 0.0, "", []])
@pytest.mark.parametrize("theirs_is_later", [True, False])
def test_an_option_that_a_later_release_adds_switched_off_goes_on(off, theirs_is_later, plans):
    later = copy.deepcopy(plans)
    later["vit"]["train"]["of_a_later_release"] = off
    arguments(later)["backbone_options"]["windowed"] = off
    arguments(later)["gating"] = off
    assert goes_on(plans, later) if theirs_is_later else goes_on(later, plans)


def test_an_option_of_a_later_release_that_is_on_is_another_run(plans):
    later = copy.deepcopy(plans)
    later["vit"]["train"]["of_a_later_release"] = 7
    with pytest.raises(UserError, match=r"train\.of_a_later_release was 7 and is now None"):
        goes_on(plans, later)
    with pytest.raises(UserError, match=r"train\.of_a_later_release was None and is now 7"):
        goes_on(later, plans)


def test_results_without_a_description_of_their_data_go_on(plans):
    earlier = copy.deepcopy(plans)
    del earlier["vit"]["data"]
    assert goes_on(plans, earlier)


def test_what_ends_a_run_early_may_come_and_change(plans):
    """Plans of earlier releases do not know it."""
    other, earlier = copy.deepcopy(plans), copy.deepcopy(plans)
    other["vit"]["train"]["stop_file"] = "/home/me/enough"
    del earlier["vit"]["train"]["stop_file"]
    assert goes_on(other, plans)
    assert goes_on(other, earlier)
    assert goes_on(earlier, other)


def test_results_of_an_earlier_release_go_on_being_resampled_as_they_were(plans):
    earlier = copy.deepcopy(plans)
    del earlier["vit"]["model"]["probability_resampling"]
    its = earlier["configurations"]["2d"]
    its["resampling_fn_probabilities"] = "resample_data_or_seg_to_shape"
    its["resampling_fn_probabilities_kwargs"] = {"order": 1}
    leave_unnamed(plans, earlier, set())
    assert plans["configurations"]["2d"] == its
    assert goes_on(plans, earlier)


def test_resampling_that_both_record_counts(plans):
    other = copy.deepcopy(plans)
    other["configurations"]["2d"]["resampling_fn_probabilities"] = "resample_data_or_seg_to_shape"
    leave_unnamed(plans, other, set())
    with pytest.raises(UserError, match="resampling_fn_probabilities was 'resample_data_or_seg_to"):
        goes_on(plans, other)


def test_results_of_an_earlier_release_keep_their_dice_unless_told_otherwise(plans):
    earlier = copy.deepcopy(plans)
    del earlier["vit"]["train"]["batch_dice"]
    asked = copy.deepcopy(plans)
    plans["configurations"]["2d"]["batch_dice"] = False  # of auto, for images
    earlier["configurations"]["2d"]["batch_dice"] = True
    leave_unnamed(plans, earlier, set())
    assert plans["configurations"]["2d"]["batch_dice"] is True
    assert "batch_dice" not in plans["vit"]["train"]
    assert goes_on(plans, earlier)
    asked["vit"]["train"]["batch_dice"] = asked["configurations"]["2d"]["batch_dice"] = False
    leave_unnamed(asked, earlier, set())
    with pytest.raises(UserError, match="batch_dice was True and is now False"):
        goes_on(asked, earlier)


def test_a_switch_that_both_record_counts(plans):
    other = copy.deepcopy(plans)
    plans["vit"]["train"]["a_switch"], other["vit"]["train"]["a_switch"] = True, False
    with pytest.raises(UserError, match="a_switch was False and is now True"):
        goes_on(plans, other)


@pytest.mark.parametrize("option", ["grad_checkpointing", "grad_checkpointing_head"])
def test_what_only_saves_memory_may_change(option, plans):
    """It is the way on for a run that has run out of it, after the first checkpoint too."""
    other = copy.deepcopy(plans)
    plans["vit"]["train"][option] = True
    assert goes_on(plans, other)


def test_the_message_stays_short(plans):
    other = copy.deepcopy(plans)
    arguments(other)["head"] = "x" * 5000
    with pytest.raises(UserError, match="rename the config file, or move those") as caught:
        refuse_other_model(plans, other, Path("r" * 5000))
    assert len(str(caught.value)) <= 500
    assert "arch_kwargs.head was" in str(caught.value)
