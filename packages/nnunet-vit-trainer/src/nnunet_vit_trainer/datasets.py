"""What nnU-Net has on this machine: its folders, and the datasets that it preprocessed."""

import json
import os
from pathlib import Path
from typing import Any

from vit_backbone import UserError


def environment(variable: str) -> str:
    """Return an environment variable of nnU-Net's.

    Raises:
        UserError: it is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set; nnU-Net needs "
            "nnUNet_raw, nnUNet_preprocessed and nnUNet_results"
        )
    return value


def find_dataset(name_or_id: str | int) -> tuple[str, Path]:
    """Find a preprocessed dataset's name and folder by its name or number.

    Raises:
        UserError: none, or several of that number.
    """
    root = Path(environment("nnUNet_preprocessed"))
    wanted = str(name_or_id)
    names = sorted(folder.name for folder in root.glob("Dataset[0-9][0-9][0-9]_*"))
    if wanted.isdecimal():
        found = [name for name in names if name.startswith(f"Dataset{int(wanted):03d}_")]
    else:
        found = [name for name in names if name == wanted]
    if len(found) != 1:
        raise UserError(
            f"dataset {wanted} {'is not in' if not found else 'is not unique in'} {root} "
            f"(there: {', '.join(names) or 'none'}); run first: nnUNetv2_plan_and_preprocess "
            "-d ID -c 2d"
        )
    return found[0], root / found[0]


def read_plans(dataset_folder: Path, identifier: str, configuration: str) -> dict[str, Any]:
    """Read a dataset's plans.

    Args:
        dataset_folder: see `find_dataset`.
        identifier: the plans' name.
        configuration: its preprocessed data must be there.

    Raises:
        UserError: there are no such plans, or no such data.
    """
    file = dataset_folder / f"{identifier}.json"
    if not file.is_file():
        raise UserError(f"there is no {file}; run nnUNetv2_plan_and_preprocess, or give -p")
    plans = read_json(file)
    data = plans.get("configurations", {}).get(configuration, {}).get("data_identifier")
    if data and not (dataset_folder / data).is_dir():
        raise UserError(
            f"there is no {dataset_folder / data}; run nnUNetv2_preprocess "
            f"-d ID -c {configuration} -plans_name {identifier}"
        )
    return plans


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))
