"""What a report tells, gathered from a trained model's folder; no path of this machine is in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from nnunet_vit_trainer.checkpoints.content import read_safely
from nnunet_vit_trainer.checkpoints.newest import NAMES
from nnunet_vit_trainer.checkpoints.private_paths import without_paths
from nnunet_vit_trainer.checkpoints.releases import release_in
from nnunet_vit_trainer.pictures.scores import mean_of, text_of, worst_first
from nnunet_vit_trainer.pictures.validation import Validation
from nnunet_vit_trainer.plans.derive import PLANS_KEY

from .command import command_of

_CONFIG_SECTIONS = ("model", "lora", "train")
_MOST_CASES, _MOST_CLASSES = 50, 8


@dataclass(frozen=True)
class Table:
    """A table of a report: a heading, a line below it, names of columns, rows of text."""

    title: str
    said: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Content:
    """What a report tells.

    Attributes:
        title: of the page.
        dice: nnU-Net's mean Dice of the validation.
        facts: name -> value, in order.
        tables: of the Dice, per class and per case.
        config: as YAML.
        versions: name -> version.
        command: that trains such a run.
    """

    title: str
    dice: str
    facts: dict[str, str]
    tables: list[Table]
    config: str
    versions: dict[str, str]
    command: str


def read_run(fold: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a fold's checkpoint says of its training; nothing where there is none.

    Args:
        fold: the fold's folder.

    Returns:
        What nnU-Net's logger held; our part of the plans. That of plans.json is of the fold that
        began last, with as many epochs, by the releases that it had.

    Raises:
        UserError: a checkpoint that cannot be read.
    """
    file = next((file for name in NAMES if (file := fold / name).is_file()), None)
    content = {} if file is None else read_safely(file, mapped=True)
    plans = content.get("init_args", {}).get("plans", {})
    return content.get("logging") or {}, plans.get(PLANS_KEY) or {}


def gather(
    fold: Path,
    found: Validation,
    logged: Mapping[str, Sequence[Any]],
    ours: Mapping[str, Any] | None = None,
) -> Content:
    """Gather what a report tells of a fold.

    Args:
        fold: the fold's folder.
        found: its validation.
        logged: see `read_run`.
        ours: see there; ``None`` or nothing: as in plans.json.
    """
    plans = without_paths(found.model.plans | ({PLANS_KEY: ours} if ours else {}))
    ours = plans[PLANS_KEY]
    config = {name: ours[name] for name in _CONFIG_SECTIONS if name in ours}
    return Content(
        title=f"{plans['dataset_name']} {plans['plans_name']} {fold.name}",
        dice=text_of(found.mean),
        facts=_facts(plans, found, logged),
        tables=[_per_class(found), _per_case(found)],
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        versions={str(name): str(value) for name, value in ours.get("versions", {}).items()},
        command=command_of(fold, plans),
    )


def _facts(
    plans: Mapping[str, Any], found: Validation, logged: Mapping[str, Sequence[Any]]
) -> dict[str, str]:
    ours, model = plans[PLANS_KEY], found.model
    (configuration,) = plans["configurations"]
    settings = plans["configurations"][configuration]
    tuned = ours.get("model", {}).get("tune", "")
    cases = (ours.get("data") or {}).get("cases")
    sides = " x ".join(str(side) for side in settings["patch_size"])
    facts = {
        "data set": plans["dataset_name"] + (f", {cases} cases" if cases else ""),
        "channels": ", ".join(model.channels),
        "validated on": found.cases,
        "head": str(settings["architecture"]["arch_kwargs"].get("head", "")),
        "backbone": f"{ours.get('backbone', {}).get('name', '')}, tuned: {tuned}",
        **_weights(ours),
        "input normalisation": str(ours.get("input_norm", "")),
        "tile and batch": f"{sides} px, {settings['batch_size']} at once ({configuration})",
    }
    return facts | _course(ours, logged)


def _weights(ours: Mapping[str, Any]) -> dict[str, str]:
    weights, release = ours.get("weights"), release_in(ours)
    if not weights:
        return {"weights": "random initialisation, no pretrained weights"}
    licence = release.licence if release else None
    return {
        "weights": PureWindowsPath(str(weights["file"])).name,
        "sha256": str(weights["sha256"]),
        "licence of the weights": (
            f"{licence}, if it is the release's" if licence else "not known: see where it is from"
        ),
        "their source": release.source if release else "not known",
    }


def _course(ours: Mapping[str, Any], logged: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    begun, ended = (logged.get(f"epoch_{end}_timestamps") or [] for end in ("start", "end"))
    if not ended:
        return {}
    seconds = sum(end - start for start, end in zip(begun, ended, strict=False))
    planned = ours.get("train", {}).get("num_epochs", len(ended))
    last = datetime.fromtimestamp(ended[-1], tz=UTC)
    return {
        "epochs": f"{len(ended)} of {planned}, {seconds / 60:.1f} minutes in all",
        "last epoch": f"{last:%Y-%m-%d %H:%M} UTC",
    }


def _per_class(found: Validation) -> Table:
    rows = []
    for number, shown in enumerate(found.model.classes):
        there = [s.dice[number] for s in found.scores if not math.isnan(s.dice[number])]
        values = ", ".join(str(value) for value in shown.values)
        ends = [text_of(end) for end in (mean_of(there), min(there, default=math.nan))]
        rows.append([shown.name, values, *ends, f"{len(there)} of {len(found.scores)}"])
    said = "The mean and the lowest over the cases that have the class, in truth or prediction."
    columns = ["class", "labels", "mean", "lowest", "cases"]
    return Table("Dice per class", said, columns, rows)


def _per_case(found: Validation) -> Table:
    ranked = worst_first(found.scores)
    shown = found.model.classes[:_MOST_CLASSES]
    said = "Worst first."
    if len(ranked) > _MOST_CASES:
        said += f" The worst {_MOST_CASES} of {len(ranked)}; all are in validation/summary.json."
    if len(shown) < len(found.model.classes):
        said += f" The first {len(shown)} of {len(found.model.classes)} classes."
    rows = [
        [score.case, text_of(score.mean), *map(text_of, score.dice[: len(shown)])]
        for score in ranked[:_MOST_CASES]
    ]
    return Table("Dice per case", said, ["case", "mean", *(c.name for c in shown)], rows)
