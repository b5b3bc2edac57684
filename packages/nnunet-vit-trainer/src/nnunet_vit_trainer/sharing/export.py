"""Export a trained model as a zip: whole, with LoRA merged, or without the base weights."""

import copy
import json
import zipfile
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import torch

from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, frozen_names
from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import (
    CHECKPOINT_KEY,
    FINAL,
    named_folder,
    network_of,
    read_model,
)
from nnunet_vit_trainer.checkpoints.private_paths import without_paths
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.results.folds import SUMMARY, refuse_alike
from vit_backbone import UserError, quoted

from .archive import is_plain_name
from .card_files import card_files
from .exported import check_target, disk_in_one_line, find_folds, read_checkpoint

Form = Literal["whole", "merged", "adapter"]
# What nnU-Net's own export takes beside plans and checkpoints. Not debug.json: it is full of
# the exporter's paths, and nothing reads it.
_OF_MODEL = ("dataset_fingerprint.json",)
_OF_FOLD = ("progress.png", SUMMARY)
_OF_CROSS_VALIDATION = ("summary.json", "postprocessing.json", "postprocessing.pkl")
# What prediction reads, and -pretrained_weights.
_FOR_PREDICTION = (
    "network_weights",
    "init_args",
    "trainer_name",
    "inference_allowed_mirroring_axes",
    REBUILT_FROM,
)


@disk_in_one_line()
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
    folder, zip_file = named_folder(folder), Path(zip_file)
    plans, dataset = read_model(folder)
    _check_form(form, plans)
    fold_folders = find_folds(folder, folds, checkpoint_name)
    if folds is None:
        refuse_alike(folder, [fold.name.removeprefix("fold_") for fold in fold_folders])
    check_target(zip_file)
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
            content = read_checkpoint(
                fold / checkpoint_name, plans, dataset, complete=form != "adapter"
            )
            content = _shared_checkpoint(content, plans, dataset, shared, form)
            # Weights do not shrink, so they are stored as they are.
            member = zipfile.ZipInfo(f"{model}/{fold.name}/{checkpoint_name}")
            with archive.open(member, "w", force_zip64=True) as stream:
                torch.save(content, stream)
        _add_other_files(archive, folder, fold_folders, model, checkpoint_name)
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
    model = plans[PLANS_KEY].get("model") or {}
    if form == "adapter" and model.get("tune") == "lora" and not arguments.get("use_lora"):
        raise UserError(
            "LoRA is folded into these weights, so they cannot be left out; export the results "
            "that were not merged"
        )
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


def _merged_plans(plans: dict[str, Any]) -> dict[str, Any]:
    """Say that there is no LoRA (any more), under a name that does not hide the unmerged."""
    merged = copy.deepcopy(plans)
    merged["plans_name"] += "_merged"
    (settings,) = merged["configurations"].values()
    settings["architecture"]["arch_kwargs"]["use_lora"] = False
    return merged


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
    archive: zipfile.ZipFile, folder: Path, fold_folders: list[Path], model: str, checkpoint: str
) -> None:
    """Add what there is of the files that nothing depends on, and no other checkpoint's scores."""
    folds = "_".join(fold.name.removeprefix("fold_") for fold in fold_folders)
    names = [
        *_OF_MODEL,
        *(f"{fold.name}/{name}" for fold in fold_folders for name in _OF_FOLD),
        *(f"crossval_results_folds_{folds}/{name}" for name in _OF_CROSS_VALIDATION),
    ]
    for name in names:
        file = folder / name
        if file.suffix == ".json" and file.is_file():
            tree = read_json(file)
            if name.endswith(SUMMARY) and tree.get(CHECKPOINT_KEY, FINAL) != checkpoint:
                continue
            tree = without_paths(_without_folders(tree))
            archive.writestr(f"{model}/{name}", json.dumps(tree, indent=4))
        elif file.is_file():
            archive.write(file, f"{model}/{name}")


def _without_folders(tree: dict[str, Any]) -> dict[str, Any]:
    """Cut the masks' paths of a summary to their names: they may be relative, and still be told."""
    cases = tree.get("metric_per_case")
    for case in cases if isinstance(cases, list) else []:
        for key in ("prediction_file", "reference_file"):
            if isinstance(case, dict) and isinstance(case.get(key), str):
                case[key] = PureWindowsPath(case[key]).name
    return tree
