"""Whether results may be continued: the same model, recipe and data as they were trained with."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vit_backbone import UserError

from .plans import PLANS_KEY

# Options that a later run may change without making another model or another recipe of it.
_FREE_OPTIONS = {"num_epochs", "save_every", "checkpoint"}


def describe_data(dataset_folder: Path, data_identifier: str) -> dict[str, Any]:
    """Describe preprocessed data, so that a run is not continued on other data.

    Args:
        dataset_folder: the data set's folder in nnUNet_preprocessed.
        data_identifier: its folder of preprocessed cases.
    """
    dataset = json.loads((dataset_folder / "dataset.json").read_text(encoding="utf-8"))
    cases = sorted(file.stem for file in (dataset_folder / data_identifier).glob("*.pkl"))
    return {
        "channel_names": dataset["channel_names"],
        "labels": dataset["labels"],
        "cases": len(cases),
        "cases_sha256": hashlib.sha256("\n".join(cases).encode()).hexdigest(),
    }


def refuse_other_model(plans: dict[str, Any], existing: dict[str, Any], folder: Path) -> None:
    """Refuse to mix a run with the results of another config under the same name.

    The weights' path, versions, the number of epochs, when checkpoints are written and what they
    hold may differ.

    Args:
        plans: the derived plans of this run.
        existing: the plans that lie in the results folder.
        folder: that folder, for the message.

    Raises:
        UserError: naming the first difference.
    """
    ours, theirs = (dict(_flat_items(_what_counts(p))) for p in (plans, existing))
    for key in {**theirs, **ours}:
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{folder} holds results of another config of this name, or of other data: {key} "
                f"was {theirs.get(key)!r} and is now {ours.get(key)!r}; rename the config file, "
                "or move those results away"
            )


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
    if "train_patch_embedding" not in theirs.get("backbone_options", {}):
        ours.get("backbone_options", {}).pop("train_patch_embedding", None)
        if not ours.get("backbone_options", True):
            del ours["backbone_options"]


def _architecture(plans: dict[str, Any]) -> dict[str, Any]:
    settings = next(iter(plans["configurations"].values()))
    return settings["architecture"].get("arch_kwargs", {})


def _what_counts(plans: dict[str, Any]) -> dict[str, Any]:
    ours = plans.get(PLANS_KEY, {})
    train = ours.get("train", {})
    return {
        "configurations": plans["configurations"],
        "backbone": ours.get("backbone", {}).get("asked"),
        "weights": {"sha256": (ours.get("weights") or {}).get("sha256")},
        "data": ours.get("data"),
        "train": {key: value for key, value in train.items() if key not in _FREE_OPTIONS},
    }


def _flat_items(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in tree.items():
        nested = isinstance(value, dict)
        items += _flat_items(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return items
