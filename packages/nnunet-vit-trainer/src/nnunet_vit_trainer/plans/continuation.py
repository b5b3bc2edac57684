"""Whether results may be continued: the same model, recipe and data as they were trained with."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.schema import ViTTrainConfig
from vit_backbone import UserError, shorten

from .architecture import resolved_options
from .datasets import read_dataset_json
from .derive import PLANS_KEY, TORCH_RESAMPLING

# Options that a later run may change without making another model or another recipe of it.
_FREE_OPTIONS = {
    "num_epochs",
    "save_every",
    "checkpoint",
    "stop_file",
    # The same numbers from less memory: what helps a run that has run out of it.
    "grad_checkpointing",
    "grad_checkpointing_head",
}


def describe_data(dataset_folder: Path, data_identifier: str) -> dict[str, Any]:
    """Describe preprocessed data, so that a run is not continued on other data.

    Args:
        dataset_folder: the data set's folder in nnUNet_preprocessed.
        data_identifier: its folder of preprocessed cases.

    Raises:
        UserError: there is no ``dataset.json`` of nnU-Net's.
    """
    dataset = read_dataset_json(dataset_folder)
    cases = sorted(file.stem for file in (dataset_folder / data_identifier).glob("*.pkl"))
    return {
        "channel_names": dataset["channel_names"],
        "labels": dataset["labels"],
        "cases": len(cases),
        "cases_sha256": hashlib.sha256("\n".join(cases).encode()).hexdigest(),
    }


def refuse_other_model(plans: dict[str, Any], existing: dict[str, Any], folder: Path) -> None:
    """Refuse to mix a run with the results of another config under the same name.

    The weights' path, versions, the number of epochs, what ends them early, when checkpoints are
    written, what they hold, and what is computed twice to save memory may differ.

    Args:
        plans: the derived plans of this run.
        existing: the plans that lie in the results folder.
        folder: that folder, for the message.

    Raises:
        UserError: naming the first difference.
    """
    found = first_difference(plans, existing)
    if found is not None:
        raise UserError(
            f"{shorten(folder, 200)} holds results of another config of this name, or of other "
            f"data: {found}; rename the config file, or move those results away"
        )


def first_difference(plans: dict[str, Any], existing: dict[str, Any]) -> str | None:
    """Say in what two runs' derived plans differ as models, recipes or data, or ``None``.

    Releases differ in the options that they record. One that a release did not know yet was off,
    or at the default that it has now, so where it is missing it counts as that.

    Args:
        plans: of this run.
        existing: of the other, maybe of another release.
    """
    ours, theirs = (_what_counts(p) for p in (plans, existing))
    if theirs["data"] is None:
        ours["data"] = None
    ours, theirs = dict(_flat_items(ours)), dict(_flat_items(theirs))
    for key in {**theirs, **ours}:
        was, now = theirs.get(key), ours.get(key)
        recorded_by_both = key in ours and key in theirs
        if was != now and (recorded_by_both or was or now):
            return f"{key} was {shorten(repr(was), 60)} and is now {shorten(repr(now), 60)}"
    return None


def leave_unnamed(plans: dict[str, Any], existing: dict[str, Any], given: set[str]) -> None:
    """Take away, in place, what existing plans do not name since they are older than the option.

    Other folds and continued runs then build the network that the existing plans mean: options that
    plans do not name have a meaning of their own (`network.build_network`).

    Args:
        plans: derived for this run.
        existing: the plans that lie in the results folder.
        given: the head's options that the config names.
    """
    from vit_backbone import find_head, options_of_old_plans

    ours, theirs = _architecture(plans), _architecture(existing)
    for name in options_of_old_plans(find_head(ours["head"])).keys() - theirs.keys() - given:
        ours.pop(name, None)
        plans[PLANS_KEY]["model"]["decoder"].pop(name, None)
    _keep_settings(plans, existing)


def _keep_settings(plans: dict[str, Any], existing: dict[str, Any]) -> None:
    """Resample, and take the loss, as existing plans do that are older than the keys for it."""
    (ours,), (theirs,) = (p["configurations"].values() for p in (plans, existing))
    new, old = plans[PLANS_KEY], existing[PLANS_KEY]
    if "probability_resampling" not in old["model"]:
        ours |= {key: value for key, value in theirs.items() if key in TORCH_RESAMPLING}
        del new["model"]["probability_resampling"]
    if "batch_dice" not in old["train"] and new["train"]["batch_dice"] == "auto":
        ours |= {key: value for key, value in theirs.items() if key == "batch_dice"}
        del new["train"]["batch_dice"]


def _architecture(plans: dict[str, Any]) -> dict[str, Any]:
    settings = next(iter(plans["configurations"].values()))
    return settings["architecture"].get("arch_kwargs", {})


def _what_counts(plans: dict[str, Any]) -> dict[str, Any]:
    ours = plans.get(PLANS_KEY, {})
    train = _recipe_defaults() | ours.get("train", {})
    return {
        "configurations": {
            name: _with_head_defaults(settings)
            for name, settings in plans["configurations"].items()
        },
        "backbone": ours.get("backbone", {}).get("asked"),
        "weights": {"sha256": (ours.get("weights") or {}).get("sha256")},
        "data": ours.get("data"),
        "train": {key: value for key, value in train.items() if key not in _FREE_OPTIONS},
    }


def _recipe_defaults() -> dict[str, Any]:
    defaults = dataclasses.asdict(ViTTrainConfig())
    # Plans hold the resolved share of the rate, of every release.
    del defaults["backbone_lr"], defaults["backbone_lr_scale"]
    return defaults


def _with_head_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Complete the head's options with what plans mean that do not name them."""
    from vit_backbone import find_head, options_of_old_plans

    architecture = settings.get("architecture", {})
    arguments = architecture.get("arch_kwargs", {})
    if "head" not in arguments:
        return settings
    try:
        old = options_of_old_plans(find_head(arguments["head"]))
        meant = resolved_options(arguments["head"], {}) | old
    except UserError:  # results of a head that is not installed here; the heads differ then
        return settings
    # What is named comes first: of two heads the names are said to differ, not an option.
    arguments = {**arguments, **{n: v for n, v in meant.items() if n not in arguments}}
    return settings | {"architecture": architecture | {"arch_kwargs": arguments}}


def _flat_items(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in tree.items():
        nested = isinstance(value, dict)
        items += _flat_items(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return items
