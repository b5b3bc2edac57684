"""Export a trained model as a zip: whole, with LoRA merged, or without the base weights."""

import copy
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from nnunet_vit_trainer.checkpoints.base_weights import load_base_weights
from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, fill_up, frozen_names, read_safely
from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import (
    CHECKPOINT_NAME,
    FOLD_NAME,
    network_of,
    read_json,
    read_model,
)
from nnunet_vit_trainer.checkpoints.private_paths import without_paths
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, quoted, reason_of

from .archive import is_plain_name
from .card_files import card_files
from .foreign_checkpoint import check_fits, check_form

Form = Literal["whole", "merged", "adapter"]
# What nnU-Net's own export takes beside plans and checkpoints. Not debug.json: it is full of
# the exporter's paths, and nothing reads it.
_OF_MODEL = ("dataset_fingerprint.json",)
_OF_FOLD = ("progress.png", "validation/summary.json")
_OF_CROSS_VALIDATION = ("summary.json", "postprocessing.json", "postprocessing.pkl")
# What prediction reads, and -pretrained_weights.
_FOR_PREDICTION = (
    "network_weights",
    "init_args",
    "trainer_name",
    "inference_allowed_mirroring_axes",
    REBUILT_FROM,
)


@contextmanager
def _disk_in_one_line() -> Iterator[None]:
    """Say in one line that a folder went away meanwhile, is full, or may not be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"not exported: {reason_of(error)}") from error


@_disk_in_one_line()
def export_vit(
    folder: str | Path,
    zip_file: str | Path,
    *,
    form: Form = "whole",
    folds: list[str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
) -> Path:
    """Write a trained model's folder to a zip, in the layout of nnU-Net's own export.

    A model card lies in it, ``README.md`` and ``CITATION.bib``, and no path of this machine.
    ``whole`` and ``merged`` are installed by stock ``nnUNetv2_install_pretrained_model_from_zip``
    or by `import_vit`, ``adapter`` by the latter.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``, from any results folder.
        zip_file: to write; it must not exist.
        form: ``whole``: as it is, optimizer included; ``merged``: LoRA folded into the weights,
            plans named ``<plans>_merged``, nothing of the training; ``adapter``: nothing of the
            training, and without the weights that the receiver has.
        folds: such as ``["0", "all"]``; ``None`` is every fold that has the checkpoint.
        checkpoint_name: which checkpoint; an adapter checkpoint is completed, for ``whole`` and
            ``merged``, from the weight file that the plans name.

    Returns:
        The zip.

    Raises:
        UserError: no such results, or broken ones; nothing to merge or to leave out; a missing
            weight file; a zip that is there or cannot be written.
    """
    folder, zip_file = Path(folder).resolve(), Path(zip_file)
    plans, dataset = read_model(folder)
    _check_form(form, plans)
    fold_folders = _find_folds(folder, folds, checkpoint_name)
    if zip_file.is_dir():
        raise UserError(f"{zip_file} is a folder; give the name of a file to write")
    if zip_file.exists():
        raise UserError(f"{zip_file} is there already; give another name, or delete it")
    if not zip_file.parent.is_dir():
        raise UserError(f"there is no folder {zip_file.parent}; make it first")
    shared = without_paths(_merged_plans(plans) if form == "merged" else plans)
    name = folder.name.replace(f"__{plans['plans_name']}__", f"__{shared['plans_name']}__")
    for part in (plans["dataset_name"], name):
        if not is_plain_name(part):
            raise UserError(f"{quoted(part)} cannot be a folder's name on every system; rename it")
    model = f"{plans['dataset_name']}/{name}"
    shared_dataset = without_paths(dataset)
    with (
        written_whole(zip_file) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for fold in fold_folders:
            content = _read_checkpoint(fold / checkpoint_name, plans, dataset, form)
            content = _shared_checkpoint(content, plans, dataset, shared, form)
            # Weights do not shrink, so they are stored as they are.
            member = zipfile.ZipInfo(f"{model}/{fold.name}/{checkpoint_name}")
            with archive.open(member, "w", force_zip64=True) as stream:
                torch.save(content, stream)
        _add_other_files(archive, folder, fold_folders, model)
        for file, tree in (("plans.json", shared), ("dataset.json", shared_dataset)):
            archive.writestr(f"{model}/{file}", json.dumps(tree, indent=4))
        card = card_files(
            name,
            shared,
            shared_dataset,
            fold_folders,
            checkpoint=checkpoint_name,
            complete=form != "adapter",
        )
        for file, text in card.items():
            archive.writestr(f"{model}/{file}", text)
    return zip_file


def _check_form(form: Form, plans: dict[str, Any]) -> None:
    (settings,) = plans["configurations"].values()
    arguments = settings["architecture"]["arch_kwargs"]
    if form == "merged" and not arguments.get("use_lora"):
        raise UserError("these results hold no LoRA to merge; export them without --merged")
    if form == "adapter" and not (arguments.get("use_lora") or arguments.get("freeze_backbone")):
        raise UserError(
            "the whole backbone was trained, so its weights cannot be left out; export without "
            "--adapter-only"
        )
    if form == "adapter" and plans[PLANS_KEY].get("weights") is None:
        raise UserError(
            "these results began with random weights, which no receiver has; export without "
            "--adapter-only"
        )


def _find_folds(folder: Path, folds: list[str] | None, checkpoint_name: str) -> list[Path]:
    if not re.fullmatch(CHECKPOINT_NAME, checkpoint_name):
        raise UserError(
            f"-chk {quoted(checkpoint_name)}: a name as checkpoint_final.pth is expected"
        )
    if folds is None:
        files = folder.glob(f"fold_*/{checkpoint_name}")
        found = sorted(f.parent for f in files if re.fullmatch(FOLD_NAME, f.parent.name))
        if not found:
            raise UserError(f"no fold of {folder} has a {checkpoint_name}; see -chk")
        return found
    for fold in folds:
        if not re.fullmatch(FOLD_NAME, f"fold_{fold}"):
            raise UserError(f"-f {quoted(fold)}: numbers, or all, are expected")
        if not (folder / f"fold_{fold}" / checkpoint_name).is_file():
            raise UserError(f"there is no {folder}/fold_{fold}/{checkpoint_name}; see -f and -chk")
    return [folder / f"fold_{fold}" for fold in dict.fromkeys(folds)]


def _merged_plans(plans: dict[str, Any]) -> dict[str, Any]:
    """Say that there is no LoRA (any more), under a name that does not hide the unmerged."""
    merged = copy.deepcopy(plans)
    merged["plans_name"] += "_merged"
    (settings,) = merged["configurations"].values()
    settings["architecture"]["arch_kwargs"]["use_lora"] = False
    return merged


def _read_checkpoint(
    file: Path, plans: dict[str, Any], dataset: dict[str, Any], form: Form
) -> dict[str, Any]:
    """Read a checkpoint and complete it if it is an adapter checkpoint, unless that is wanted."""
    content = read_safely(file)
    check_form(content, str(file))
    if content.get(REBUILT_FROM) and form != "adapter":
        network = network_of(plans, dataset)
        load_base_weights(network, plans[PLANS_KEY].get("weights"))
        fill_up(content["network_weights"], network)
        content[REBUILT_FROM] = None
    shapes = network_of(plans, dataset, in_memory=False)
    weights = dict(content["network_weights"])
    if form == "adapter":
        fill_up(weights, shapes)  # what is left out on purpose
    check_fits(weights, shapes, str(file))
    return content


def _shared_checkpoint(
    content: dict[str, Any],
    plans: dict[str, Any],
    dataset: dict[str, Any],
    shared_plans: dict[str, Any],
    form: Form,
) -> dict[str, Any]:
    """Turn a checkpoint into what is shared of it."""
    weights = content["network_weights"]
    if form != "whole":
        content = {name: content.get(name) for name in _FOR_PREDICTION}
    if form == "merged":
        network = network_of(plans, dataset)
        network.load_state_dict(weights)
        network.disable_lora()
        weights = network.state_dict()
    if form == "adapter":
        left_out = frozen_names(network_of(plans, dataset))
        weights = {name: tensor for name, tensor in weights.items() if name not in left_out}
        content[REBUILT_FROM] = shared_plans[PLANS_KEY]["weights"]
    init_args = content["init_args"] | {"plans": shared_plans, "dataset_json": dataset}
    rest = {name: value for name, value in content.items() if name != "network_weights"}
    return without_paths(rest | {"init_args": init_args}) | {"network_weights": weights}


def _add_other_files(
    archive: zipfile.ZipFile, folder: Path, fold_folders: list[Path], model: str
) -> None:
    """Add what there is of the files that nothing depends on."""
    folds = "_".join(fold.name.removeprefix("fold_") for fold in fold_folders)
    names = [
        *_OF_MODEL,
        *(f"{fold.name}/{name}" for fold in fold_folders for name in _OF_FOLD),
        *(f"crossval_results_folds_{folds}/{name}" for name in _OF_CROSS_VALIDATION),
    ]
    for name in names:
        file = folder / name
        if file.suffix == ".json" and file.is_file():
            tree = without_paths(read_json(file))
            archive.writestr(f"{model}/{name}", json.dumps(tree, indent=4))
        elif file.is_file():
            archive.write(file, f"{model}/{name}")
