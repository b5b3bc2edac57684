"""Derived plans: one configuration, flattened, ours, and never mixed with another config's."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_vit_trainer.config.schema import (
    ViTLoRAConfig,
    ViTModelConfig,
    ViTnnUNetConfig,
    ViTTrainConfig,
)
from nnunet_vit_trainer.network import NETWORK_CLASS_NAME
from nnunet_vit_trainer.plans.continuation import describe_data, refuse_other_model
from nnunet_vit_trainer.plans.derive import (
    architecture_of,
    derive_plans,
)
from vit_backbone import UserError

PLANS = {
    "dataset_name": "Dataset001_A",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "patch_size": [40, 56],
            "batch_size": 12,
            "batch_dice": True,
            "normalization_schemes": ["ZScoreNormalization"],
            "architecture": {"network_class_name": "unet"},
        },
        "2d_small": {"inherits_from": "2d", "batch_size": 2},
        "3d_fullres": {"patch_size": [8, 40, 56], "batch_size": 2},
        "3d_cascade": {"inherits_from": "3d_fullres"},
        "2d_cascade": {"inherits_from": "2d", "previous_stage": "2d_small"},
    },
}
BACKBONE = {"asked": "test_vit", "name": "test_vit", "options": {}}


def factory(
    *, backbone_options=None, width: int = 3, depth: tuple[int, ...] = (1, 2), **unknown
): ...


@pytest.fixture(autouse=True)
def head(monkeypatch):
    monkeypatch.setattr("vit_backbone.find_head", lambda name: factory)


def derive(configuration="2d", model=None, lora=None, weights=None, deep=False, **train):
    config = ViTnnUNetConfig(
        ViTModelConfig(**(model or {})), ViTLoRAConfig(**(lora or {})), ViTTrainConfig(**train)
    )
    plans = copy.deepcopy(PLANS)
    return derive_plans(
        plans, configuration, "mine", config, dict(BACKBONE), weights, deep_supervision=deep
    )


def kwargs_of(plans):
    return plans["configurations"]["2d"]["architecture"]["arch_kwargs"]


def test_the_trained_configuration_stands_alone_with_our_architecture():
    plans = derive(model={"probability_resampling": "plans"})
    assert plans["plans_name"] == "nnUNetPlans_mine"
    assert list(plans["configurations"]) == ["2d"]
    settings = plans["configurations"]["2d"]
    assert settings.pop("architecture")["network_class_name"] == NETWORK_CLASS_NAME
    theirs = {k: v for k, v in PLANS["configurations"]["2d"].items() if k != "architecture"}
    assert settings == theirs
    assert plans["vit"]["train"]["num_epochs"] == 1000
    assert plans["vit"]["versions"]["nnunetv2"].startswith("2.8")
    json.dumps(plans)


def test_probabilities_are_resampled_by_torch_with_arguments_that_nnunet_takes():
    (settings,) = derive()["configurations"].values()
    resample = ConfigurationManager(settings).resampling_fn_probabilities
    ones = resample(np.ones((2, 3, 8, 6), np.float16), (3, 16, 9), (5, 1, 1), (5, 0.5, 0.66))
    assert ones.shape == (2, 3, 16, 9)
    assert (ones == 1).all()


def test_inheritance_is_flattened():
    settings = derive("2d_small")["configurations"]["2d_small"]
    assert "inherits_from" not in settings
    assert (settings["batch_size"], settings["patch_size"]) == (2, [40, 56])


def test_batch_and_patch_size_override_the_plan():
    settings = derive(batch_size=3, patch_size=[64, 96])["configurations"]["2d"]
    assert (settings["batch_size"], settings["patch_size"]) == (3, [64, 96])


@pytest.mark.parametrize(
    ("asked", "of_images", "of_volumes"),
    [("auto", False, True), (None, True, True), (True, True, True), (False, False, False)],
)
def test_cases_of_one_image_count_each_for_itself_unless_told_otherwise(
    asked, of_images, of_volumes, monkeypatch
):
    for shape, expected in (([1, 250, 250], of_images), ([181, 217, 181], of_volumes)):
        monkeypatch.setitem(PLANS, "original_median_shape_after_transp", shape)
        plans = derive(batch_dice=asked)
        assert plans["configurations"]["2d"]["batch_dice"] is expected
        assert plans["vit"]["train"]["batch_dice"] == asked


def test_a_dice_of_each_sample_that_was_planned_stays(monkeypatch):
    monkeypatch.setitem(PLANS["configurations"]["2d"], "batch_dice", False)
    assert derive()["configurations"]["2d"]["batch_dice"] is False
    assert derive(batch_dice=True)["configurations"]["2d"]["batch_dice"] is True


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("3d_fullres", "not 2D"),
        ("3d_cascade", "not 2D"),
        ("2d_cascade", "it takes the masks of '2d_small' too"),
        ("2D", "no configuration '2D'; they have 2d, 2d_small"),
    ],
)
def test_impossible_configurations_are_refused(configuration, message):
    with pytest.raises(UserError, match=message):
        derive(configuration)


def test_a_patch_size_does_not_make_a_3d_configuration_2d():
    with pytest.raises(UserError, match="not 2D"):
        derive("3d_fullres", patch_size=[64, 64])


def test_derived_plans_are_not_derived_again():
    with pytest.raises(UserError, match="derived already"):
        derive_plans(derive(), "2d", "mine", ViTnnUNetConfig(), BACKBONE)


def test_adapter_checkpoints_need_a_weight_file_to_restore_the_rest():
    with pytest.raises(UserError, match=r"train\.checkpoint: adapter needs a weight file"):
        derive(checkpoint="adapter")
    plans = derive(checkpoint="adapter", weights={"file": "a.pth", "sha256": "1"})
    assert plans["vit"]["train"]["checkpoint"] == "adapter"


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"initial_lr": 0.5}, "train.initial_lr"),
        ({"patch_size": [32, 32]}, "patch_size"),
        ({"model": {"model_path": "segformer"}}, "arch_kwargs.head"),
        ({"weights": {"file": "a.pth", "sha256": "1"}}, "weights.sha256"),
    ],
)
def test_results_of_another_config_are_not_mixed(other, key):
    with pytest.raises(UserError, match=rf"holds results of another config.*{key} was"):
        refuse_other_model(derive(**other), derive(), Path("results"))


def test_another_backbone_is_another_model():
    theirs = derive()
    theirs["vit"]["backbone"]["asked"] = "vit_tiny_patch16_224"
    with pytest.raises(UserError, match="backbone was 'vit_tiny_patch16_224'"):
        refuse_other_model(derive(), theirs, Path("results"))


def test_other_data_are_not_trained_on_under_the_same_results(tmp_path):
    dataset = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    (tmp_path / "nnUNetPlans_2d").mkdir()

    def derived_for(cases):
        for name in cases:
            (tmp_path / "nnUNetPlans_2d" / f"{name}.pkl").touch()
        plans = derive()
        plans["vit"]["data"] = describe_data(tmp_path, "nnUNetPlans_2d")
        return plans

    before = derived_for("ab")
    refuse_other_model(derived_for("ab"), before, Path("results"))
    with pytest.raises(UserError, match=r"or of other data: data\.cases was 2 and is now 3"):
        refuse_other_model(derived_for("abc"), before, Path("results"))


def test_the_resolved_config_stands_in_the_plans():
    recorded = derive(model={"checkpoint_path": "a.pth", "tune": "full"})["vit"]
    assert recorded["model"]["decoder"] == {"width": 3, "depth": [1, 2]}
    assert "checkpoint_path" not in recorded["model"]
    assert recorded["lora"]["r"] == 8


@pytest.mark.parametrize(
    ("tune", "pretrained", "given", "scale"),
    [
        ("lora", True, {}, 1.0),
        ("frozen", True, {}, 1.0),
        ("full", True, {}, 0.1),
        ("last_2", True, {}, 0.1),
        ("full", False, {}, 1.0),
        ("full", True, {"backbone_lr_scale": 0.3}, 0.3),
        ("lora", True, {"backbone_lr": 5e-4}, 0.5),
    ],
)
def test_the_backbones_rate_is_resolved(tune, pretrained, given, scale):
    weights = {"file": "a.pth", "sha256": "1"} if pretrained else None
    train = derive(model={"tune": tune}, weights=weights, **given)["vit"]["train"]
    assert train["backbone_lr_scale"] == pytest.approx(scale)
    assert "backbone_lr" not in train


def test_what_the_network_needs_of_the_recipe_reaches_it():
    options = kwargs_of(derive(drop_path_rate=0.2, amp_dtype="float32"))["backbone_options"]
    assert options == {"drop_path_rate": 0.2, "float16_as": "float32"}


def test_more_epochs_and_other_versions_are_no_other_model():
    ours, theirs = derive(num_epochs=3), derive()
    theirs["vit"]["versions"]["torch"] = "0"
    refuse_other_model(ours, theirs, Path("results"))


def test_the_architecture_carries_every_option_resolved():
    config = ViTnnUNetConfig()
    config.model.decoder.width = 5
    kwargs = architecture_of(config, "test_vit")["arch_kwargs"]
    assert kwargs["head"] == "unetr"
    assert kwargs["backbone_name"] == "test_vit"
    assert (kwargs["width"], kwargs["depth"]) == (5, [1, 2])
    assert kwargs["lora_rank"] == 8
    assert "backbone_options" not in kwargs
    assert "pretrained" not in kwargs
    assert "checkpoint_path" not in kwargs


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        (None, (True, False, None)),
        ("lora", (True, False, None)),
        ("frozen", (False, True, None)),
        ("full", (False, False, None)),
        ("last_3", (False, True, 3)),
    ],
)
def test_what_trains_is_what_was_asked(tune, expected):
    kwargs = kwargs_of(derive(model={"tune": tune}))
    last = kwargs.get("backbone_options", {}).get("train_last_blocks")
    assert (kwargs["use_lora"], kwargs["freeze_backbone"], last) == expected


def test_without_lora_all_of_it_trains():
    kwargs = kwargs_of(derive(lora={"enabled": False}))
    assert (kwargs["use_lora"], kwargs["freeze_backbone"]) == (False, False)


def test_the_rarer_options_reach_the_backbone():
    plans = derive(
        model={"patch_size": 16, "layer_indices": [0, 1, 2, 3], "input_norm": "none"},
        lora={"dora": True, "rslora": True},
    )
    assert kwargs_of(plans)["backbone_options"] == {
        "patch_size": 16,
        "indices": [0, 1, 2, 3],
        "use_dora": True,
        "use_rslora": True,
    }


def test_deep_supervision_is_another_network_with_nnunets_strides(monkeypatch):
    with pytest.raises(UserError, match="has no deep supervision"):
        derive(deep=True)
    module = sys.modules[factory.__module__]
    monkeypatch.setattr(module, "DEEP_SUPERVISION_STRIDES", (1, 2, 2), raising=False)
    plans = derive(deep=True)
    assert plans["plans_name"] == "nnUNetPlans_mine_ds"
    assert kwargs_of(plans)["auxiliary_outputs"] is True
    scales = 1 / np.cumprod(np.vstack(kwargs_of(plans)["strides"]), axis=0)[:-1]
    assert scales.tolist() == [[1, 1], [0.5, 0.5], [0.25, 0.25]]


def test_a_head_that_would_drop_an_option_is_refused(monkeypatch):
    monkeypatch.setattr("vit_backbone.find_head", lambda name: lambda **unknown: None)
    derive()
    with pytest.raises(UserError, match="does not take backbone_options, so patch_size"):
        derive(model={"patch_size": 16})
