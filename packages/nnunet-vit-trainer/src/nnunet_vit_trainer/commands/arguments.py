"""The arguments that the commands share which look at a run, and what a shell completes them to."""

import argparse
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.catalogue import shipped_configs
from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER

DEFAULT_DEVICE = "cuda"


def complete_by(words: Callable[..., list[str]], *actions: Any) -> None:
    """Let a shell complete arguments (argcomplete looks for ``completer``).

    Args:
        words: returns what may be meant.
        actions: the arguments.
    """
    for action in actions:
        action.completer = words


def add_what_to_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is trained, and where: data set, config, trainer, device."""
    add = parser.add_argument
    dataset = add("dataset_name_or_id", metavar="DATASET", help="dataset name or ID, preprocessed")
    complete_by(complete_dataset, dataset)
    add("configuration", metavar="CONFIGURATION", help="a 2D configuration, such as 2d")
    config = add(
        "--config",
        required=True,
        metavar="FILE_OR_NAME",
        help="YAML file, or a shipped config's name (listed by nnUNetv2_configs_vit --list)",
    )
    complete_by(complete_config, config)
    add(
        "-tr",
        default=DEFAULT_TRAINER,
        metavar="TRAINER",
        help="trainer (default: %(default)s; with deep supervision: nnUNetTrainer_vit)",
    )
    add(
        "-p",
        default=DEFAULT_PLANS,
        metavar="PLANS",
        help="the dataset's plans (default: %(default)s)",
    )
    add(
        "-device",
        default=DEFAULT_DEVICE,
        choices=("cuda", "cpu", "mps"),
        help="where to train (default: %(default)s)",
    )


def complete_shipped(prefix: str, **_: Any) -> list[str]:
    """List the shipped configs that a word may become.

    Args:
        prefix: of the word.
    """
    return [name for name in shipped_configs() if name.startswith(prefix)]


def complete_config(prefix: str, **_: Any) -> list[str]:
    """List the shipped configs, YAML files and folders that a word may become.

    Args:
        prefix: of the word.
    """
    typed = glob.glob(f"{glob.escape(prefix)}*")  # noqa: PTH207 - as it is typed
    found = [f"{file}/" if Path(file).is_dir() else file for file in typed]
    files = [file for file in found if file.endswith(("/", ".yaml", ".yml"))]
    return complete_shipped(prefix) + sorted(files)


def complete_dataset(prefix: str, variable: str = "nnUNet_preprocessed", **_: Any) -> list[str]:
    """List the data sets in a folder of nnU-Net's that a word may become.

    Args:
        prefix: of the word.
        variable: the environment variable that names the folder.
    """
    folder = os.environ.get(variable)
    names = [file.name for file in Path(folder).glob("Dataset*")] if folder else []
    return sorted(name for name in names if name.startswith(prefix))
