"""What plans of 0.1.0 leave unnamed: they build, train and continue what they built then.

0.1.0 gave the UNETR's convolutions biases, and trained the patch embedding of any image that has
not three channels.
"""

import copy
from pathlib import Path

import pytest
import torch

from nnunet_vit_trainer.checkpoints.content import frozen_names
from nnunet_vit_trainer.config.schema import DecoderConfig, ViTModelConfig, ViTnnUNetConfig
from nnunet_vit_trainer.launch.backbones import find_backbone, recorded_backbone
from nnunet_vit_trainer.launch.prepare import try_to_build
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.plans.continuation import leave_unnamed, refuse_other_model
from nnunet_vit_trainer.plans.derive import derive_plans
from nnunet_vit_trainer.training.optimization import parameter_groups
from vit_backbone import UserError, create_backbone

# Where the UNETR is installed: nox's sessions one_head and quick.
pytest.importorskip("vit_heads_unetr", reason="unetr is not installed")

PATCH_WEIGHT = "backbone.patch_embed.proj.weight"
NARROW = [16, 8, 8, 4, 4]


def derive(channels=1, tune="lora", file="", **decoder):
    model = ViTModelConfig(
        backbone="test_vit",
        checkpoint_path=str(file),
        pretrained=None if file else False,
        tune=tune,
        decoder=DecoderConfig(decoder_channels=NARROW, **decoder),
    )
    backbone, weights = find_backbone(model, None)
    settings = {
        "data_identifier": "data",
        "patch_size": [32, 32],
        "batch_size": 2,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
    }
    plans = {
        "dataset_name": "Dataset001_A",
        "plans_name": "nnUNetPlans",
        "configurations": {"2d": settings},
    }
    return derive_plans(plans, "2d", "mine", ViTnnUNetConfig(model=model), backbone, weights)


def kwargs_of(plans):
    return plans["configurations"]["2d"]["architecture"]["arch_kwargs"]


def as_of_0_1_0(plans):
    """Take away what 0.1.0 did not write."""
    old = copy.deepcopy(plans)
    kwargs = kwargs_of(old)
    del kwargs["conv_bias"]
    options = kwargs.get("backbone_options", {})
    options.pop("train_patch_embedding", None)
    if not options:
        kwargs.pop("backbone_options", None)
    old["vit"]["backbone"].pop("in_chans", None)
    return old


def build(plans, channels=1):
    return build_network(channels, 2, **copy.deepcopy(kwargs_of(plans)))


def test_new_plans_name_what_the_head_is():
    assert kwargs_of(derive())["conv_bias"] is False
    assert "head.encoder.z4.0.1.bias" not in build(derive()).state_dict()


def test_old_plans_build_the_head_with_biases():
    state = build(as_of_0_1_0(derive())).state_dict()
    assert "head.encoder.z4.0.1.bias" in state
    assert "head.decoder.merges.0.3.bias" in state


@pytest.mark.parametrize("tune", ["lora", "frozen", "last_1"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_old_plans_go_on_training_the_patch_embedding(tune, channels):
    """The names that are frozen decide what adapter checkpoints leave out, and the optimizer."""
    new = derive(channels, tune)
    old = build(as_of_0_1_0(new), channels)
    assert (PATCH_WEIGHT in frozen_names(old)) == (channels == 3)
    groups = {g["name"] for g in parameter_groups(old, initial_lr=1e-3, weight_decay=0.0)}
    separate = tune != "last_1" and channels != 3
    assert any(name.startswith("adapted patch embedding") for name in groups) == separate
    new_trains = tune == "lora" and channels != 3
    assert (PATCH_WEIGHT not in frozen_names(build(new, channels))) == new_trains


def test_full_tuning_trains_the_patch_embedding():
    plans = derive(1, "full")
    assert "backbone_options" not in kwargs_of(plans)
    assert PATCH_WEIGHT not in frozen_names(build(plans))


@pytest.mark.parametrize(("its", "trains"), [(3, True), (2, False)])
def test_a_file_that_has_the_images_channels_is_not_adapted(its, trains, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(create_backbone("test_vit", pretrained=False, in_chans=its)[0].state_dict(), file)
    network = build(derive(2, "lora", file), 2)
    assert (PATCH_WEIGHT not in frozen_names(network)) == trains


def test_another_fold_and_a_continued_run_keep_the_old_network():
    old, new = as_of_0_1_0(derive()), derive()
    leave_unnamed(new, old, {"decoder_channels"})
    refuse_other_model(new, old, Path("results"))
    assert kwargs_of(new) == kwargs_of(old)
    assert "conv_bias" not in new["vit"]["model"]["decoder"]
    assert list(build(new).state_dict()) == list(build(old).state_dict())
    assert recorded_backbone(ViTModelConfig(backbone="test_vit"), old)[0].get("in_chans") is None


def test_new_plans_are_left_as_they_are():
    existing, new = derive(tune="frozen"), derive(tune="frozen")
    leave_unnamed(new, existing, set())
    assert new == existing
    assert kwargs_of(new)["backbone_options"]["train_patch_embedding"] is False


def test_an_option_that_the_config_names_is_not_taken_away():
    old, new = as_of_0_1_0(derive()), derive(conv_bias=True)
    leave_unnamed(new, old, {"conv_bias"})
    assert kwargs_of(new)["conv_bias"] is True


def test_a_hybrid_goes_on_predicting_but_begins_no_run():
    """Its maps are coarser than its patches say, so that none is trained any more."""
    plans = derive(3)
    kwargs_of(plans)["backbone_name"] = "vit_tiny_r_s16_p8_224"
    with torch.device("meta"):
        network = build(plans, 3)
    assert type(network.backbone.patch_embed).__name__ == "HybridEmbed"
    try_to_build(plans["configurations"]["2d"], allow_hybrid=True)
    with pytest.raises(UserError, match="is not a plain ViT"):
        try_to_build(plans["configurations"]["2d"])


def test_a_head_without_backbone_options_still_trains_on_grey_images(monkeypatch):
    monkeypatch.setattr("vit_backbone.find_head", lambda name: lambda **unknown: None)
    assert "backbone_options" not in kwargs_of(derive())
