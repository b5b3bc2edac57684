"""Plan a raw data set for a config: everything between the command and nnU-Net's planner."""

import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_vit_trainer.config.reading import find_config, load_config
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.launch.backbones import asked_backbone
from nnunet_vit_trainer.launch.checks import first_fold
from nnunet_vit_trainer.plans.datasets import (
    environment,
    find_dataset,
    has_cases,
    read_dataset_json,
)
from nnunet_vit_trainer.plans.derive import PLANNED_KEY, PLANS_KEY, derive_plans
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError, quoted

from .adapting import Adapter
from .memory import GIB, build, counter_of
from .nnunet import nnunet_in_one_line
from .objects import classes_of
from .planner import ViTPlanner
from .reasons import Reasons
from .sampling import typical_widths

NNUNETS_MEMORY = 8
"""GiB that nnU-Net plans for."""


_FINGERPRINT = "dataset_fingerprint.json"


class Planned(NamedTuple):
    """What was planned.

    Attributes:
        dataset: its name.
        file: the plans.
        reasons: why they are as they are.
        preprocessed: whether the data that they name are there already.
        fold: to train first.
    """

    dataset: str
    file: Path
    reasons: Reasons
    preprocessed: bool
    fold: str


def plan(
    dataset_name_or_id: str | int,
    config_path: str | Path,
    *,
    plans_name: str = "nnUNetViTPlans",
    memory: float | None = None,
    processes: int = 8,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Planned:
    """Plan the 2D configuration of a raw data set for a config, and write the plans.

    Args:
        dataset_name_or_id: in ``nnUNet_raw``; its fingerprint is extracted if there is none.
        config_path: a YAML file, or the name of a shipped config.
        plans_name: of the plans.
        memory: of the device that will train, in GiB; ``None`` is that of this machine's GPU, or
            nnU-Net's 8.
        processes: that extract the fingerprint.
        on_progress: told what is done.

    Raises:
        UserError: anything that the user can mend; no plans were written then.
    """
    config = load_config(config_path)
    name, raw = find_dataset(dataset_name_or_id, "nnUNet_raw")
    folder = Path(environment("nnUNet_preprocessed"), name)
    config_name, file = find_config(config_path).stem, folder / f"{plans_name}.json"
    kept = _kept_configurations(file, config_name)
    dataset = read_dataset_json(raw)
    with nnunet_in_one_line(name):
        labels = _labels_of(dataset)
        on_progress("extracting the fingerprint ...")
        _extract_fingerprint(name, folder, processes)
        on_progress("looking at masks ...")
        planner = ExperimentPlanner(name)
        widths = _widths(planner, dataset["labels"], folder)
    on_progress("counting memory ...")
    channels = len(dataset["channel_names"])
    adapter = _adapter(config, labels, channels, widths, *device_memory(memory))
    on_progress("planning ...")
    with nnunet_in_one_line(name):
        plans = ViTPlanner(
            name, plans_name, adapter, partial(_finish, config, config_name, adapter, kept)
        ).plan_experiment()
    data = folder / plans["configurations"]["2d"]["data_identifier"]
    fold = first_fold(folder, len(planner.dataset))
    return Planned(name, file, _reasons(adapter, plans), has_cases(data), fold)


def _kept_configurations(file: Path, config_name: str) -> dict[str, Any]:
    """Return the configurations that a user added to the plans that are written over.

    Raises:
        UserError: the plans are nnU-Net's, planned for another config, or broken.
    """
    if not os.path.isfile(file):
        return {}
    plans = read_json(file)
    # Not with the config's name behind "_": so trainings name the plans that they derive.
    free = (f"nnUNetViTPlans{number}" for number in count(2))
    free_name = next(name for name in free if not file.with_name(f"{name}.json").exists())
    another = f"give another name with -p, such as {free_name}"
    planned = plans.get(PLANNED_KEY)
    if not isinstance(planned, dict) or PLANS_KEY in plans:
        raise UserError(f"{file} was not written by nnUNetv2_plan_vit; {another}")
    if planned.get("config") != config_name:
        raise UserError(
            f"{file} was planned for config {quoted(str(planned.get('config')))}; {another}, or "
            "move it away"
        )
    configurations = plans.get("configurations") or {}
    if not isinstance(configurations, dict):
        raise UserError(f"{file}: its configurations are no mapping; {another}")
    return {n: c for n, c in configurations.items() if n != "2d"}


def _extract_fingerprint(name: str, folder: Path, processes: int) -> None:
    """Extract it where there is none, as nnU-Net's command does."""
    file = folder / _FINGERPRINT
    if file.exists():
        try:
            read_json(file)
        except UserError as error:  # nnU-Net writes it in place, so that a killed run leaves a part
            raise UserError(f"{error}; remove it, and it is extracted anew") from error
        return
    extract_fingerprint_dataset(
        convert_dataset_name_to_id(name), num_processes=processes, show_progress_bar=False
    )


def _widths(planner: ExperimentPlanner, labels: dict[str, Any], folder: Path) -> dict[str, float]:
    spacings = planner.dataset_fingerprint["spacings"]
    if len(spacings) != len(planner.dataset):
        raise UserError(
            f"{folder / _FINGERPRINT} is of {len(spacings)} cases, the data set has "
            f"{len(planner.dataset)}; remove it, and it is extracted anew"
        )
    of_cases = dict(zip(planner.dataset, spacings, strict=True))  # nnU-Net's order of both
    axes, _ = planner.determine_transpose()
    spacing = planner.determine_fullres_target_spacing()[axes]
    reader = planner.determine_reader_writer()()
    return typical_widths(planner.dataset, of_cases, labels, reader, axes, spacing)


def device_memory(given: float | None) -> tuple[float, str]:
    """Return the bytes that there are to plan for, and where that is from.

    Args:
        given: in GiB; ``None`` is this machine's GPU, or nnU-Net's 8 where there is none.
    """
    if given is not None:
        return given * GIB, "as given"
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1]), "this machine's GPU"
    return NNUNETS_MEMORY * float(GIB), "nnU-Net's default (no GPU here)"


def _labels_of(dataset: dict[str, Any]) -> LabelManager:
    """Return the labels without the ignore label."""
    names = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    return LabelManager(names, dataset.get("regions_class_order"))


def _adapter(
    config: ViTnnUNetConfig,
    labels: LabelManager,
    channels: int,
    widths: dict[str, float],
    memory: float,
    source: str,
) -> Adapter:
    network = build(config, channels, labels.num_segmentation_heads)
    count = counter_of(network, config, labels, channels)
    patch = network.backbone.patch_embed.patch_size
    unseen = [name for name in classes_of(labels.label_dict) if name not in widths]
    return Adapter(config.train, patch, widths, count, memory, source, unseen)


def _finish(
    config: ViTnnUNetConfig,
    config_name: str,
    adapter: Adapter,
    kept: dict[str, Any],
    plans: dict[str, Any],
) -> dict[str, Any]:
    """Name the ViT as the plans' architecture: nnU-Net's own would not take this tile."""
    derived = derive_plans(plans, "2d", config_name, config, *asked_backbone(config.model, None))
    architecture = derived["configurations"]["2d"]["architecture"]
    configuration = plans["configurations"]["2d"] | {"architecture": architecture}
    reasons = [f"{name}: {text}" for name, text in _reasons(adapter, plans)]
    return plans | {
        "configurations": {"2d": configuration, **kept},
        PLANNED_KEY: {"config": config_name, "plans_name": plans["plans_name"], "reasons": reasons},
    }


def _reasons(adapter: Adapter, plans: dict[str, Any]) -> Reasons:
    if plans["original_median_shape_after_transp"][0] == 1:
        return adapter.reasons
    return [
        *adapter.reasons,
        ("volumes", "3D configurations are left out: ViTs here segment slices"),
    ]
