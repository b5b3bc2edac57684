"""The command of a run, as a report tells it."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from nnunet_vit_trainer.checkpoints.private_paths import command_without_paths
from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER
from nnunet_vit_trainer.plans.derive import PLANNED_KEY

_TRAINS = "nnUNetv2_train_vit"


def command_of(fold: Path, plans: Mapping[str, Any]) -> str:
    """Return the command that this process is, if it trains, or one that trains such a run.

    Args:
        fold: the fold's folder.
        plans: derived, of its model.
    """
    program = PurePath(sys.argv[0]).name.removesuffix(".exe")
    trains = program == _TRAINS
    words = [program, *sys.argv[1:]] if trains else _put_together(fold, plans)
    return shlex.join(command_without_paths(words))


def _put_together(fold: Path, plans: Mapping[str, Any]) -> list[str]:
    trainer = fold.parent.name.split("__")[0]
    (configuration,) = plans["configurations"]
    # The data set's own plans name its data; the config's name is what ours have more.
    identifier = str(plans["configurations"][configuration].get("data_identifier", ""))
    own = identifier.removesuffix(f"_{configuration}")
    own = plans.get(PLANNED_KEY, {}).get("plans_name", own)  # a ViT's plan may share data
    if not plans["plans_name"].startswith(f"{own}_"):
        own = DEFAULT_PLANS
    config = plans["plans_name"].removeprefix(f"{own}_").removesuffix("_ds")
    words = [_TRAINS, plans["dataset_name"], configuration, fold.name.removeprefix("fold_")]
    words += ["--config", f"{config}.yaml"]
    words += ["-tr", trainer] if trainer != DEFAULT_TRAINER else []
    words += ["-p", own] if own != DEFAULT_PLANS else []
    return words
