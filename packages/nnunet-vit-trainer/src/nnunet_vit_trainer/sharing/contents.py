"""What an export holds beside its checkpoints: which model, its plans and its ``dataset.json``."""

import re
import zipfile
from dataclasses import dataclass
from typing import Any

from nnunet_vit_trainer.checkpoints.model_folder import check_plans
from nnunet_vit_trainer.plans.json_file import parse_json
from vit_backbone import UserError

from .archive import checked_members, read_member

LARGEST_JSON = 16 << 20
"""Of a file, in bytes."""

# nnU-Net splits the name of a model's folder at "__", into three.
_PART = r"(?:(?!__)[^/])+"
_MODEL = re.compile(rf"(Dataset[0-9]{{3}}_[^/]+/{_PART}__{_PART}__{_PART})/.+")


@dataclass(frozen=True)
class Contents:
    """An export.

    Attributes:
        dataset_name: the folder that the model's lies in.
        name: of the model's folder, ``<trainer>__<plans>__<configuration>``.
        plans: of ``plans.json``; they have passed `check_plans`.
        dataset: of ``dataset.json``.
        files: the others, relative to the model's folder.
    """

    dataset_name: str
    name: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    files: dict[str, zipfile.ZipInfo]


def contents_of(archive: zipfile.ZipFile) -> Contents:
    """Read an export's plans and ``dataset.json``, once its members' names are sure to be plain.

    Args:
        archive: whoever made it.

    Raises:
        UserError: not an export of ours.
    """
    source = str(archive.filename)
    members = {member.filename: member for member in checked_members(archive)}
    model = model_of(list(members), source)
    files = {name.removeprefix(f"{model}/"): member for name, member in members.items()}
    contents = []
    for name in ("plans.json", "dataset.json"):
        if name not in files:
            raise UserError(f"{source}: there is no {name} in it")
        text = read_member(archive, files.pop(name), LARGEST_JSON)
        contents.append(parse_json(text, f"{source}: {name}"))
    dataset_name, name = model.split("/")
    check_plans(contents[0], name, source)
    return Contents(dataset_name, name, *contents, files)


def model_of(names: list[str], source: str) -> str:
    """Return the one model's folder that a zip's files lie in, ``<dataset>/<model>``.

    Args:
        names: the files in the zip, see `checked_members`.
        source: the zip, for messages.

    Raises:
        UserError: more than one model, or none.
    """
    models = {match[1] if (match := _MODEL.fullmatch(name)) else "" for name in names}
    if len(models) != 1 or "" in models:
        raise UserError(f"{source} is not an export of nnUNetv2_export_vit: not one model in it")
    return models.pop()
