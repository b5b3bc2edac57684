"""A ready config of the best row: the recommended head on its backbone."""

import re
import shlex
from pathlib import Path

import yaml

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.config.catalogue import read_shipped
from nnunet_vit_trainer.config.names import DEFAULT_PLANS
from nnunet_vit_trainer.config.reading import load_config
from vit_backbone import available_heads, shorten

from .table import MODEL_KEYS, Row

_RECOMMENDED, _ALWAYS_THERE = "recommended", "linear"
_LONGEST_NAME = 60


def training_command(
    dataset: str, configuration: str, plans_name: str, fold: str, file: str
) -> str:
    """Return the command that trains a config on what was probed.

    Args:
        dataset: its name.
        configuration: that was probed.
        plans_name: likewise.
        fold: to train.
        file: the config.
    """
    words = ["nnUNetv2_train_vit", dataset, configuration, fold, "--config", file]
    words += ["-p", plans_name] if plans_name != DEFAULT_PLANS else []
    return shlex.join(words)


def config_text(row: Row, dataset: str, configuration: str, plans_name: str, file: Path) -> str:
    """Return the config of a row, with how to train it in its comments.

    Args:
        row: that did not fail.
        dataset: its name.
        configuration: that was probed.
        plans_name: likewise.
        file: that it will be written to.
    """
    shipped = read_shipped(_shipped_name())
    content = yaml.safe_load(shipped.text)
    content["model"] |= {key: row.model[key] for key in MODEL_KEYS}
    if row.model["pretrained"] is False:
        # LoRA over random weights learns nothing.
        content["model"] |= {"tune": "full", "checkpoint_path": ""}
    told = str(file) if str(file).isprintable() else file.name
    command = training_command(dataset, configuration, plans_name, "FOLD", told)
    head = (
        f"# The best of what nnUNetv2_probe_vit tried on {shorten(dataset)}: a linear probe on it\n"
        f"# reached a Dice of {row.dice:.3f}. The head and the recipe are {shipped.name}'s.\n"
        f"#   {command}\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def config_name(row: Row) -> str:
    """Name the config of a row, so that nnU-Net can name plans by it."""
    words = ["probed", row.name, f"p{row.patch}", row.taps]
    words += [row.input_norm] if row.input_norm != "auto" else []
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in words]
    plain[1] = plain[1][-_LONGEST_NAME:].strip("-.")
    return "-".join(filter(None, plain))


def write_config(
    row: Row, dataset: str, configuration: str, plans_name: str, folder: Path
) -> tuple[Path, str]:
    """Write the config of a row, and read it as a training does.

    What is there under its name with other content, edited or of other weights, stays, and the
    config gets a name with a number.

    Args:
        row: see `config_text`, like the next three.
        dataset: see there.
        configuration: see there.
        plans_name: see there.
        folder: to write into.

    Returns:
        The file, and what to know of it, empty where there is nothing.

    Raises:
        OSError: what the disk says.
    """
    file = first = folder / f"{config_name(row)}.yaml"
    number = 1
    while _is_another(file, text := config_text(row, dataset, configuration, plans_name, file)):
        number += 1
        file = first.with_stem(f"{first.stem}-{number}")
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    load_config(file)
    notes = []
    if file != first:
        notes.append(f"{first} was there with other content and stays as it is")
    if _shipped_name() != _RECOMMENDED:
        notes.append("head linear, since nnunet-vit-trainer[segformer] is not installed")
    return file, "; ".join(notes)


def _is_another(file: Path, text: str) -> bool:
    """Say whether a file is there that differs by more than the Dice in the comment."""
    if not file.is_file():
        return False
    there = file.read_text(encoding="utf-8", errors="replace")
    one, other = (re.sub(r"a Dice of \d\.\d+", "", config, count=1) for config in (there, text))
    return one != other


def _shipped_name() -> str:
    head = read_shipped(_RECOMMENDED).head
    return _RECOMMENDED if head in available_heads() else _ALWAYS_THERE
