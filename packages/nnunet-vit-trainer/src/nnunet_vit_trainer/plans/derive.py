"""Derive the plans file that is the model: the dataset's own plans with our architecture.

nnU-Net rebuilds a network from ``plans.json`` alone, so everything that decides what the network
is stands there, under ``architecture``; how it was trained stands under the top-level key ``vit``.
Plain dicts in, plain dicts out.
"""

import dataclasses
from collections.abc import Sequence
from importlib.metadata import version
from numbers import Integral
from typing import Any

from nnunet_vit_trainer.config.input_statistics import UNIT_RANGE_STATISTICS
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.plans.input_norm import resolve_input_norm
from vit_backbone import UserError, patch_embedding_trains, quoted

from .architecture import architecture_of, auxiliary_outputs, resolved_options

PLANS_KEY = "vit"
PLANNED_KEY = "vit_planned"
"""Of plans by `nnunet_vit_trainer.planning`, and of those derived from them: what they were planned
for, their own name, and why they are as they are."""
_RESAMPLING = "resampling_fn_probabilities"
# Of nnU-Net's planners "torchres". Its default takes the classes one by one through skimage.
TORCH_RESAMPLING = {
    _RESAMPLING: "resample_torch_fornnunet",
    f"{_RESAMPLING}_kwargs": {
        "is_seg": False,
        "force_separate_z": False,
        "memefficient_seg_resampling": False,
    },
}
RECORDED_VERSIONS = ("nnunet-vit-trainer", "vit-backbone", "nnunetv2", "timm", "torch", "peft")
"""Distributions whose versions stand in plans and in manifests of predictions."""


def derived_plans_name(plans_name: str, config_name: str, deep_supervision: bool = False) -> str:
    """Name the plans of a config: ``nnUNetPlans`` and ``unetr`` make ``nnUNetPlans_unetr``.

    With deep supervision the network is another one, and so is the name: ``nnUNetPlans_unetr_ds``.
    """
    return f"{plans_name}_{config_name}{'_ds' if deep_supervision else ''}"


def derive_plans(
    plans: dict[str, Any],
    configuration: str,
    config_name: str,
    config: ViTnnUNetConfig,
    backbone: dict[str, Any],
    weights: dict[str, Any] | None = None,
    *,
    deep_supervision: bool = False,
) -> dict[str, Any]:
    """Derive plans that hold one configuration, flattened, with our architecture.

    Args:
        plans: the dataset's own plans.
        configuration: a 2D configuration of theirs, such as ``2d``.
        config_name: the config's name.
        config: the checked config; a ``batch_size`` or ``patch_size`` of its replaces the plan's.
        backbone: ``asked``, the timm name that the config resolves to; ``name`` and ``options``,
            what the weight file makes of it (`vit_backbone.fit_to_checkpoint`); ``in_chans``, the
            channels of its patch embedding (which plans of 0.1.0 do not say); ``statistics``,
            where its weights were not trained with those of `statistics_of`.
        weights: ``file`` and ``sha256`` of the pretrained weights (see `base_weights`); ``None``
            without any.
        deep_supervision: whether the head gets its auxiliary outputs.

    Raises:
        UserError: no such configuration, a 3D one, plans that are derived already, statistics
            that do not fit how the plans normalise, a head without deep supervision, or adapter
            checkpoints of a random initialisation.
    """
    if PLANS_KEY in plans:
        raise UserError(
            f"plans {plans['plans_name']!r} are derived already; give the dataset's own with -p"
        )
    train = resolved_recipe(config, pretrained=weights is not None)
    if train["checkpoint"] == "adapter" and weights is None:
        raise UserError(
            "train.checkpoint: adapter needs a weight file that restores the rest, and a random "
            "initialisation has none; use full, or give model.checkpoint_path"
        )
    settings = settings_of(plans, configuration)
    input_norm, said = resolve_input_norm(
        config.model.input_norm,
        settings["normalization_schemes"],
        plans.get("foreground_intensity_properties_per_channel", {}),
        backbone_statistics=statistics_of(backbone),
    )
    channels = len(settings["normalization_schemes"])
    options = backbone["options"] | _patch_embedding_option(
        config.tune, channels, backbone.get("in_chans")
    )
    settings |= TORCH_RESAMPLING if config.model.probability_resampling == "torch" else {}
    settings |= {
        "patch_size": list(train["patch_size"] or settings["patch_size"]),
        "batch_size": train["batch_size"] or settings["batch_size"],
        "batch_dice": takes_batch_dice(
            train["batch_dice"],
            settings.get("batch_dice", True),
            plans.get("original_median_shape_after_transp") or (),
        ),
        "architecture": architecture_of(config, backbone["name"], options, input_norm),
    }
    if deep_supervision:
        settings["architecture"]["arch_kwargs"] |= auxiliary_outputs(config.model.model_path)
    return {
        **plans,
        "plans_name": derived_plans_name(plans["plans_name"], config_name, deep_supervision),
        "configurations": {configuration: settings},
        PLANS_KEY: {
            "model": _recorded_model(config),
            "lora": dataclasses.asdict(config.lora),
            "train": train,
            "backbone": backbone,
            "input_norm": said,
            "weights": weights,
            "versions": {name: version(name) for name in RECORDED_VERSIONS},
        },
    }


def takes_batch_dice(asked: bool | str | None, planned: bool, shape: Sequence[float]) -> bool:
    """Return whether the loss takes one Dice of a batch, or the mean of its samples' Dice.

    nnU-Net plans the first for 2D: most slices of a volume lack most classes, and what counts is
    the volume's Dice. Where each case is one image, what counts is the mean of the images' Dice.

    Args:
        asked: ``train.batch_dice``.
        planned: by nnU-Net.
        shape: the median shape of the cases; one slice is an image.
    """
    if asked == "auto":
        return planned and list(shape[:1]) != [1]
    return planned if asked is None else bool(asked)


def statistics_of(backbone: dict[str, Any]) -> dict[str, list[float]]:
    """Return the mean and std of [0, 1] that a backbone was trained with, as its plans say.

    Args:
        backbone: of plans or for them; without ``statistics`` (as in all of 0.1.0) its name tells.
    """
    named = "dinov3_sat493m" if "sat493m" in backbone["name"] else "imagenet"
    return backbone.get("statistics") or UNIT_RANGE_STATISTICS[named]


def _patch_embedding_option(tune: str, channels: int, trained_chans: int | None) -> dict[str, bool]:
    """Say that the patch embedding does not train, where plans that do not say so mean it does.

    It must not follow from a rule at prediction: checkpoints may leave out what is frozen.
    """
    if tune == "full" or channels == 3 or trained_chans is None:
        return {}
    trains = patch_embedding_trains(channels, trained_chans, frozen=tune != "lora")
    return {} if trains else {"train_patch_embedding": False}


def resolved_recipe(config: ViTnnUNetConfig, *, pretrained: bool) -> dict[str, Any]:
    """Return ``train`` as a dict, with the share of the rate that the backbone gets.

    MedDINOv3 trains its head at 3e-4 and the pretrained ViT at a tenth of it; adapters are new
    weights like the head's.

    Args:
        config: the checked config.
        pretrained: whether the backbone's weights come from a file.
    """
    train = dataclasses.asdict(config.train)
    absolute = train.pop("backbone_lr")
    if absolute is not None:
        train["backbone_lr_scale"] = absolute / train["initial_lr"]
    elif train["backbone_lr_scale"] is None:
        new_weights = config.tune in ("lora", "frozen") or not pretrained
        train["backbone_lr_scale"] = 1.0 if new_weights else 0.1
    return train


def _recorded_model(config: ViTnnUNetConfig) -> dict[str, Any]:
    """Return ``model`` resolved; the weight file stands under ``weights``."""
    model = dataclasses.asdict(config.model) | {"tune": config.tune}
    model["decoder"] = resolved_options(model["model_path"], config.model.decoder.options())
    del model["checkpoint_path"]
    return model


def settings_of(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Return a 2D configuration of plans with everything that it inherits.

    Args:
        plans: the dataset's own.
        configuration: its name, such as ``2d``.

    Raises:
        UserError: no such configuration, one that inherits from none or from itself, a 3D one, a
            cascade's, or one that says too little.
    """
    settings = _flatten(plans["configurations"], configuration)
    patch = settings.get("patch_size")
    if not isinstance(patch, list | tuple) or len(patch) != 2:
        raise UserError(
            f"configuration {configuration!r} is not 2D (patch size {patch}); "
            "vision transformers here segment slices: use 2d"
        )
    said = f"configuration {configuration!r} of plans {plans['plans_name']!r}"
    if (stage := settings.get("previous_stage")) is not None:
        raise UserError(f"{said}, of a cascade: it takes the masks of {quoted(stage)} too; use 2d")
    missing = {"batch_size", "normalization_schemes"} - settings.keys()
    if missing:
        raise UserError(f"{said} lacks {', '.join(sorted(missing))}")
    sizes = (*patch, settings["batch_size"])
    if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise UserError(
            f"{said}: patch_size {quoted(patch)} and batch_size {quoted(settings['batch_size'])}: "
            "whole numbers of at least 1 are expected"
        )
    schemes = settings["normalization_schemes"]
    if not (isinstance(schemes, list) and schemes and all(isinstance(s, str) for s in schemes)):
        raise UserError(
            f"{said}: normalization_schemes {quoted(schemes)}: a list of names, one per channel, "
            "is expected"
        )
    return settings


def _flatten(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    visited: list[str] = []
    parent: str | None = name
    while parent:
        if parent in visited:
            circle = " from ".join([*visited, parent])
            raise UserError(f"the plans' configurations inherit in a circle: {circle}")
        if not isinstance(parent, str) or not isinstance(configurations.get(parent), dict):
            whose = f", from which {visited[-1]!r} inherits" if visited else ""
            raise UserError(
                f"the plans have no configuration {quoted(parent)}{whose}; "
                f"they have {', '.join(configurations)}"
            )
        visited.append(parent)
        settings = configurations[parent] | settings
        parent = configurations[parent].get("inherits_from")
    settings.pop("inherits_from", None)
    return settings
