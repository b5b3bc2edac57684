"""Whose a results folder and a plans file are: no run writes over another one's.

A results folder belongs to the config whose checkpoints or validation lie in it, or that is
training in it right now, which a lock tells. A start that failed before its first checkpoint
leaves a plans.json that nobody owns; the next config of the name takes its place.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.files import remove_leftovers, written_whole
from nnunet_vit_trainer.checkpoints.model_folder import check_plans
from nnunet_vit_trainer.plans.continuation import first_difference, refuse_other_model
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError, shorten

from .locks import open_lock, try_lock

_SECTIONS = ("model", "train", "backbone")
_RESULTS = ("fold_*/checkpoint_*.pth", "fold_*/validation/summary.json")


def owned_plans(folder: Path) -> dict[str, Any] | None:
    """Return the plans of a results folder that holds results; ``None`` where it holds none.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``; it need not exist.

    Raises:
        UserError: it holds results, but no plans of ours.
    """
    if not any(file for pattern in _RESULTS for file in folder.glob(pattern)):
        return None
    plans = read_json(folder / "plans.json")
    if PLANS_KEY not in plans:
        raise UserError(
            f"{shorten(folder, 200)} holds results that are not of nnUNetv2_train_vit; rename the "
            "config file, or move them away"
        )
    _check_recorded(plans, folder)
    return plans


def _check_recorded(plans: dict[str, Any], folder: Path) -> None:
    """Refuse plans that were edited: what is read of them here is not there any more."""
    source = str(folder / "plans.json")
    check_plans(plans, folder.name, source)
    ours = plans[PLANS_KEY]
    broken = [name for name in _SECTIONS if not isinstance(ours.get(name), dict)]
    if "weights" not in ours or not isinstance(ours["weights"], dict | None):
        broken.append("weights")
    if broken:
        raise UserError(
            f"{source}: its section {PLANS_KEY!r} has lost {', '.join(broken)}; put the file back "
            "as the training wrote it (each checkpoint holds it: init_args, plans)"
        )


@contextlib.contextmanager
def claim_results(folder: Path, plans: dict[str, Any]) -> Iterator[None]:
    """Own a results folder while a run trains in it, beside other folds of the same config.

    ``plans.json`` is written at once, so that a run that starts meanwhile sees what is trained.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``; it is made.
        plans: the run's derived plans.

    Raises:
        UserError: results of another config lie there, or a run of another one is under way.
    """
    file = folder / "plans.json"
    with open_lock(folder) as lock:
        alone = try_lock(lock, exclusive=True)
        if alone:
            remove_leftovers(folder)
        if alone is False:
            try_lock(lock, exclusive=False)  # whoever has just come first writes plans.json now
        existing = owned_plans(folder)
        if existing is not None:
            refuse_other_model(plans, existing, folder)
        elif alone is not False:
            write_json(plans, file)
        else:
            _refuse_other_run(plans, file)
        try_lock(lock, exclusive=False)
        yield


def _refuse_other_run(plans: dict[str, Any], file: Path) -> None:
    difference = first_difference(plans, read_json(file))
    if difference is not None:
        raise UserError(
            f"another config of this name is being trained in {shorten(file.parent, 200)}: "
            f"{difference}; rename the config file"
        )


def check_plans_file(file: Path) -> None:
    """Refuse to replace a plans file that is not a derived one of ours.

    Raises:
        UserError: somebody else's, or one that cannot be read.
    """
    if file.exists() and PLANS_KEY not in read_json(file):
        raise UserError(
            f"{file} is there and was not derived by nnUNetv2_train_vit; rename the config file"
        )


def holds(file: Path, plans: dict[str, Any]) -> bool:
    """Tell whether a file holds these plans already."""
    return file.is_file() and read_json(file) == plans


def check_places(plans: dict[str, Any], file: Path, fold_folder: Path) -> None:
    """Refuse, before any work, folders that a run could not write into.

    Args:
        plans: derived.
        file: that they go to; one that holds them already may be read-only.
        fold_folder: of the results; neither it nor what it is in need be there.

    Raises:
        UserError: naming the folder.
    """
    results = next(f for f in (fold_folder, *fold_folder.parents) if f.is_dir())
    places = [(results, "results", "nnUNet_results")]
    if not holds(file, plans):
        places.insert(0, (file.parent, "the plans of this config", "nnUNet_preprocessed"))
    for folder, what, variable in places:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"{shorten(folder, 200)} cannot be written, where {what} go; let it be written, or "
                f"set {variable} to a folder that can be"
            )


def write_json(content: dict[str, Any], file: Path) -> None:
    """Write in one go: folds that start together read this file while others write it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(content, indent=4), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
