"""A trained model's folder, ``<trainer>__<plans>__<configuration>``, as it is shared.

No torch here, but where a network is built.
"""

import copy
import os
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from nnunet_vit_trainer.network import NETWORK_CLASS_NAME, build_network
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError, quoted, reason_of, shorten

if TYPE_CHECKING:
    from vit_backbone import ViTSegmentationModel

FOLD_NAME, CHECKPOINT_NAME = r"fold_(?:\d+|all)", r"checkpoint_\w+\.pth"
"""Patterns of what is shared of a folder."""

FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"

CHECKPOINT_KEY = "vit_checkpoint"
"""Of a validation's ``summary.json``: the checkpoint that it is of, where not the final one."""


def named_folder(given: str | Path) -> Path:
    """Return a trained model's folder by the path whose last part is the model's name.

    Of a link that is the link itself or what it leads to; ``.`` has no name without its parents.

    Args:
        given: as the user gave it; it need not exist.
    """
    folder = Path(os.path.abspath(given))  # noqa: PTH100 - resolve follows links
    return folder if folder.name.count("__") == 2 else folder.resolve()


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
    configurations = plans.get("configurations")
    if (
        not isinstance(plans.get(PLANS_KEY), dict)
        or not isinstance(configurations, dict)
        or len(configurations) != 1
    ):
        raise UserError(f"{source} holds no results of nnUNetv2_train_vit")
    name, settings = next(iter(configurations.items()))
    architecture = settings.get("architecture") if isinstance(settings, dict) else None
    if not isinstance(architecture, dict) or not isinstance(architecture.get("arch_kwargs"), dict):
        raise UserError(f"{source}: plans.json has no architecture for {quoted(name)}")
    called = architecture.get("network_class_name")
    if called != NETWORK_CLASS_NAME:
        raise UserError(
            f"{source} asks for the network {quoted(called)}, not {NETWORK_CLASS_NAME!r}"
        )
    for key in ("plans_name", "dataset_name"):
        if not isinstance(plans.get(key), str):
            raise UserError(f"{source}: plans.json has no {key}")
    if not folder_name.endswith(f"__{plans['plans_name']}__{name}"):
        raise UserError(
            f"{source}: the folder is named {quoted(folder_name)}, its plans "
            f"{quoted(plans['plans_name'])}, its configuration {quoted(name)}; give it back the "
            "name <trainer>__<plans>__<configuration>"
        )


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plans and the dataset.json of a trained model's folder.

    Raises:
        UserError: not such a folder, or files that cannot be read.
    """
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"there is no {folder / name}; give a trained model's folder, "
                f"<trainer>__<plans>__<configuration>{_models_near(folder)}"
            )
    plans, dataset = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    check_plans(plans, folder.name, str(folder))
    return plans, dataset


def _models_near(folder: Path) -> str:
    """Name the models' folders in a folder, or above it, for somebody who gave the wrong one."""
    below = [file.parent for file in sorted(folder.glob("*__*__*/plans.json"))]
    found = [folder.parent] if (folder.parent / "plans.json").is_file() else below
    return f"; there: {shorten(', '.join(map(str, found)), 300)}" if found else ""


def network_of(
    plans: dict[str, Any], dataset: dict[str, Any], *, in_memory: bool = True
) -> "ViTSegmentationModel":
    """Build the network of derived plans, with random weights.

    Args:
        plans: see `check_plans`.
        dataset: the content of ``dataset.json``.
        in_memory: ``False`` builds it on the meta device: names and shapes alone, however large.

    Raises:
        UserError: its head is not installed, or nothing can be built from these plans.
    """
    import torch
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    try:
        manager = PlansManager(copy.deepcopy(plans))
        (name,) = plans["configurations"]
        configuration = manager.get_configuration(name)
        with torch.device("cpu" if in_memory else "meta"):
            return build_network(
                determine_num_input_channels(manager, configuration, dataset),
                manager.get_label_manager(dataset).num_segmentation_heads,
                **configuration.network_arch_init_kwargs,
            )
    except UserError:
        raise
    except Exception as error:  # whatever nnU-Net, timm, peft or a head makes of such values
        raise UserError(
            "no network can be built from plans.json and dataset.json: "
            f"{type(error).__name__}: {reason_of(error)}"
        ) from error


def describe_weights(plans: dict[str, Any]) -> str:
    """Name the weights that a model builds on: the timm model, the file's name and its sha256."""
    ours = plans[PLANS_KEY]
    weights = ours["weights"]
    file = PureWindowsPath(weights["file"]).name
    return f"{ours['backbone']['name']}, file {file}, sha256 {weights['sha256']}"
