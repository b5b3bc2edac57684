"""A trained model's folder, ``<trainer>__<plans>__<configuration>``, as it is shared."""

import copy
import json
from pathlib import Path, PureWindowsPath
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from vit_backbone import UserError

from .network import NETWORK_CLASS_NAME, build_network
from .plans import PLANS_KEY


def check_plans(plans: dict[str, Any], folder_name: str, source: str) -> None:
    """Refuse plans that are not derived ones, or not those of their folder.

    The name of the network's class is checked too: nnU-Net calls whatever stands there.

    Args:
        plans: the content of a ``plans.json``.
        folder_name: of the model's folder, ``<trainer>__<plans>__<configuration>``.
        source: where they are from, for messages.

    Raises:
        UserError: see above.
    """
    configurations = plans.get("configurations", {})
    if PLANS_KEY not in plans or len(configurations) != 1:
        raise UserError(f"{source} holds no results of nnUNetv2_train_vit")
    name, settings = next(iter(configurations.items()))
    called = settings.get("architecture", {}).get("network_class_name")
    if called != NETWORK_CLASS_NAME:
        raise UserError(f"{source} asks for the network {called!r}, not {NETWORK_CLASS_NAME!r}")
    if not folder_name.endswith(f"__{plans['plans_name']}__{name}"):
        raise UserError(
            f"{source}: the folder is named {folder_name!r}, its plans {plans['plans_name']!r}; "
            "give it back the name <trainer>__<plans>__<configuration>"
        )


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plans and the dataset.json of a trained model's folder.

    Raises:
        UserError: not such a folder.
    """
    contents = []
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"there is no {folder / name}; give a trained model's folder, "
                "<trainer>__<plans>__<configuration>"
            )
        contents.append(json.loads((folder / name).read_text(encoding="utf-8")))
    plans, dataset = contents
    check_plans(plans, folder.name, str(folder))
    return plans, dataset


def network_of(plans: dict[str, Any], dataset: dict[str, Any]) -> nn.Module:
    """Build the network of derived plans, with random weights.

    Args:
        plans: see `check_plans`.
        dataset: the content of ``dataset.json``.

    Raises:
        UserError: its head is not installed.
    """
    manager = PlansManager(copy.deepcopy(plans))
    (name,) = plans["configurations"]
    configuration = manager.get_configuration(name)
    return build_network(
        determine_num_input_channels(manager, configuration, dataset),
        manager.get_label_manager(dataset).num_segmentation_heads,
        **configuration.network_arch_init_kwargs,
    )


def without_paths(tree: Any) -> Any:
    """Copy JSON-like content with every absolute path cut to its last part.

    Of this machine's folders a receiver needs, and should learn, nothing.
    """
    if isinstance(tree, dict):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_paths(value) for value in tree]
    if isinstance(tree, str) and (tree.startswith("/") or PureWindowsPath(tree).is_absolute()):
        return PureWindowsPath(tree).name  # it splits at both kinds of slashes
    return tree


def describe_weights(plans: dict[str, Any]) -> str:
    """Name the weights that a model builds on: the timm model, the file's name and its sha256."""
    ours = plans[PLANS_KEY]
    weights = ours["weights"]
    file = PureWindowsPath(weights["file"]).name
    return f"{ours['backbone']['name']}, file {file}, sha256 {weights['sha256']}"
