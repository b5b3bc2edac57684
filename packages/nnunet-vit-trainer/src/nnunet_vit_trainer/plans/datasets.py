"""What nnU-Net has on this machine: its folders, and the datasets that it preprocessed."""

import json
import os
from pathlib import Path
from typing import Any

from vit_backbone import UserError, quoted, reason_of, shorten

from .derive import settings_of
from .json_file import read_json

_LARGEST_ID = 999
_ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_WHAT_FIRST = {
    "nnUNet_raw": "make it first: nnUNetv2_import_images_vit FOLDER -d ID -n NAME",
    "nnUNet_preprocessed": "run first: nnUNetv2_plan_and_preprocess -d ID -c 2d",
    "nnUNet_results": "train first, or install a model: nnUNetv2_import_vit FILE.zip",
}
_ARRAYS = ("b2nd", "npz")  # nnU-Net's endings, of now and of before
_INTENSITIES = "foreground_intensity_properties_per_channel"
_INTENSITIES_AT_FIRST = "foreground_intensity_properties_by_modality"


def environment(variable: str) -> str:
    """Return an environment variable of nnU-Net's.

    Raises:
        UserError: it is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set; nnU-Net needs three folders: "
            "export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=..."
        )
    return value


def find_dataset(name_or_id: str | int, variable: str = "nnUNet_preprocessed") -> tuple[str, Path]:
    """Find a dataset's name and folder by its name or number.

    Args:
        name_or_id: ``Dataset042_Mine``, 42, ``"42"`` or ``"042"``.
        variable: the environment variable that says where: ``nnUNet_raw``,
            ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UserError: no such folder, or none or several of that number in it.
    """
    root = Path(environment(variable))
    if not root.is_dir():
        raise UserError(
            f"the environment variable {variable}: there is no folder {root}; "
            f"{_WHAT_FIRST[variable]}"
        )
    wanted = str(name_or_id).strip()
    names = sorted(
        folder.name for folder in root.glob("Dataset[0-9][0-9][0-9]_*") if folder.is_dir()
    )
    if wanted.isdecimal():
        number = int(wanted[-18:]) if set(wanted[:-18]) <= {"0"} else _LARGEST_ID + 1
        found = [name for name in names if name.startswith(f"Dataset{number:03d}_")]
    else:
        found = [name for name in names if name == wanted]
    if len(found) != 1:
        raise UserError(
            f"dataset {wanted} {'is not in' if not found else 'is not unique in'} {root} "
            f"(there: {', '.join(found or names) or 'none'}); "
            + ("give its name" if found else _WHAT_FIRST[variable])
        )
    return found[0], root / found[0]


def free_name(number: int, name: str, raw: Path) -> str:
    """Return the name of a new data set, if nnU-Net has none of that number.

    Args:
        number: 1 to 999, given as ``-d``.
        name: without the number.
        raw: the folder ``nnUNet_raw``; those of the other two variables are looked into, too.

    Raises:
        UserError: another number, or one that is taken.
    """
    if not 1 <= number <= _LARGEST_ID:
        raise UserError(f"-d {number}: an ID from 1 to {_LARGEST_ID} is expected")
    roots = [raw, *(Path(os.environ[root]) for root in _ROOTS[1:] if os.environ.get(root))]
    there = [folder for root in roots for folder in root.glob("Dataset[0-9][0-9][0-9]*")]
    taken = {folder.name[7:10]: folder for folder in there}
    if other := taken.get(f"{number:03d}"):
        free = next(n for n in range(number, number + _LARGEST_ID) if f"{n:03d}" not in taken)
        hint = f"; {free} is free" if free <= _LARGEST_ID else ""
        raise UserError(f"-d {number}: {other} is there already{hint}, or move it away")
    return f"Dataset{number:03d}_{name}"


def others_of_number(name: str) -> list[str]:
    """Name the other data sets of a number, of which nnU-Net then takes the names alone.

    Args:
        name: of a data set, such as ``Dataset042_Mine``; it is looked for in all of nnU-Net's
            folders.
    """
    roots = [Path(os.environ[root]) for root in _ROOTS if os.environ.get(root)]
    pattern = f"{name[: len('Dataset042')]}_*"
    found = {folder.name for root in roots for folder in root.glob(pattern) if folder.is_dir()}
    return sorted(found - {name})


def read_plans(dataset_folder: Path, identifier: str, configuration: str) -> dict[str, Any]:
    """Read a dataset's plans; what nnU-Net v2 called "by modality" at first is "per channel".

    Args:
        dataset_folder: see `find_dataset`.
        identifier: the plans' name.
        configuration: a 2D one; its preprocessed data must be there.

    Raises:
        UserError: there are no such plans, no such configuration, or no such data.
    """
    file = dataset_folder / f"{identifier}.json"
    if not os.path.isfile(file):
        raise UserError(f"there is no {file}; run nnUNetv2_plan_and_preprocess, or give -p")
    plans = read_json(file)
    if _INTENSITIES not in plans and _INTENSITIES_AT_FIRST in plans:
        plans[_INTENSITIES] = plans.pop(_INTENSITIES_AT_FIRST)
    missing = {"dataset_name", "plans_name", "configurations"} - plans.keys()
    if missing or not isinstance(plans["configurations"], dict):
        lacks = ", ".join(sorted(missing)) or "configurations"
        raise UserError(f"{file} is no plans file of nnU-Net: it lacks {lacks}")
    if plans["dataset_name"] != dataset_folder.name:
        raise UserError(
            f"{file} is of dataset {plans['dataset_name']!r}, where nnU-Net would look for the "
            "data; plan this dataset anew"
        )
    settings = settings_of(plans, configuration)
    if not isinstance(settings.get("data_identifier"), str):
        raise UserError(f"{file}: configuration {configuration!r} names no data_identifier")
    data = dataset_folder / settings["data_identifier"]
    if not has_cases(data):
        raise UserError(
            f"there are no preprocessed cases in {data}; run nnUNetv2_preprocess "
            f"-d {dataset_folder.name[7:10]} -c {configuration} -plans_name {identifier}"
        )
    _refuse_other_files(data)
    return plans


def has_cases(data: Path) -> bool:
    """Tell whether a folder holds preprocessed cases.

    Args:
        data: named by a configuration's ``data_identifier``; it need not exist.
    """
    # Cases are two files each; whoever made room on a disk may have left the smaller ones.
    return any(data.glob("*.pkl")) and any(any(data.glob(f"*.{kind}")) for kind in _ARRAYS)


def _refuse_other_files(data: Path) -> None:
    """Refuse a folder of cases with more in it, by which nnU-Net cannot tell how they are kept."""
    files = {f.name.split(".")[-1]: f.name for f in data.iterdir() if f.is_file()}
    kinds = files.keys() - {"pkl", "npy"}
    if len(kinds) > 1:
        other = min(kinds, key=lambda kind: (kind in _ARRAYS, kind == _ARRAYS[0]))
        raise UserError(
            f"{data} holds {quoted(files[other])}: nnU-Net expects preprocessed cases of one kind "
            f"there ({' or '.join(_ARRAYS)}) and no other file; move it away"
        )


def read_dataset_json(dataset_folder: Path) -> dict[str, Any]:
    """Read a dataset's ``dataset.json``; ``modality``, as in nnU-Net v1, means channel_names.

    Raises:
        UserError: missing, unreadable, or without channels or labels as nnU-Net takes them.
    """
    file = dataset_folder / "dataset.json"
    content = read_json(file)
    if "channel_names" not in content and "modality" in content:
        content["channel_names"] = content["modality"]
    for key in ("channel_names", "labels"):
        if not isinstance(content.get(key), dict):
            raise UserError(f"{file} names no {key}; nnU-Net's dataset.json does")
    _check_labels(content["labels"], content.get("regions_class_order"), file)
    return content


def _check_labels(labels: dict[str, Any], order: Any, file: Path) -> None:
    """Refuse labels that nnU-Net has no outputs for, or asserts: it says so late, if at all."""
    said = f"{file}: labels {shorten(labels, 100)}"
    learned = {name: number for name, number in labels.items() if name != "ignore"}
    try:
        values = _numbers_in(learned)
        background = int(labels["background"])
    except (KeyError, TypeError, ValueError):
        values, background = set[int](), None
    if background != 0:
        raise UserError(
            f"{said}: names with numbers are expected, 'background': 0 among them, such as "
            "{'background': 0, 'tumour': 1}"
        )
    regions = any(isinstance(label, list) and len(label) > 1 for label in learned.values())
    if not regions and values != {*range(len(values))}:
        raise UserError(
            f"{said}: 0, 1, 2, ... without a gap are expected; renumber them, in the masks too, "
            "and preprocess anew"
        )
    if "ignore" in labels and labels["ignore"] not in (None, max(values) + 1):
        raise UserError(
            f"{said}: 'ignore' is expected to be the number after the others, {max(values) + 1}, "
            "without a gap; renumber it, in the masks too, and preprocess anew"
        )
    count = sum(_numbers_in({name: number}) != {0} for name, number in learned.items())
    # nnU-Net writes these numbers into masks, for the first time after the training.
    ordered = isinstance(order, list) and len(order) == count
    if regions and not (ordered and all(number in [*values] for number in order)):
        raise UserError(
            f"{said}: for regions dataset.json needs regions_class_order, a list of {count} "
            f"of the labels' numbers, got {shorten(order, 60)}"
        )


def _numbers_in(labels: dict[str, Any]) -> set[int]:
    """Return the numbers of labels; what is none raises ``ValueError`` or ``TypeError``."""
    given = [v for n in labels.values() for v in (n if isinstance(n, list) else [n])]
    if any(isinstance(number, float) and not number.is_integer() for number in given):
        raise ValueError("a label is a whole number")
    return {int(number) for number in given}


def read_splits(dataset_folder: Path) -> list[dict[str, Any]] | None:
    """Read ``splits_final.json``; ``None`` where nnU-Net has yet to write it.

    Raises:
        UserError: a file that holds no splits.
    """
    file = dataset_folder / "splits_final.json"
    if not file.exists():
        return None
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {reason_of(error)}") from error
    if not isinstance(splits, list) or not splits:
        raise UserError(f"{file} cannot be read: a list of splits is expected in it")
    for split in splits:
        parts = [split.get(part) for part in ("train", "val")] if isinstance(split, dict) else [0]
        if not all(isinstance(part, list) for part in parts):
            raise UserError(f"{file} cannot be read: a split is a mapping with lists train and val")
    return splits
