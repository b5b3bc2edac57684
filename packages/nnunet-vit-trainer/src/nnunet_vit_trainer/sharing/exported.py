"""What every export begins with: where it goes, which folds, and their checkpoints, complete."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.base_weights import load_base_weights
from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, fill_up, read_safely
from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_NAME, FOLD_NAME, network_of
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.results.folds import order_of
from vit_backbone import UserError, quoted, reason_of

from .foreign.checkpoint import check_fits, check_form


@contextmanager
def disk_in_one_line() -> Iterator[None]:
    """Say in one line that a folder went away meanwhile, is full, or may not be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"not exported: {reason_of(error)}") from error


def check_target(file: Path) -> None:
    """Refuse a file that cannot be written, or that is there.

    Raises:
        UserError: see above.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file to write")
    if file.exists():
        raise UserError(f"{file} is there already; give another name, or delete it")
    if not file.parent.is_dir():
        raise UserError(f"there is no folder {file.parent}; make it first")


def find_folds(folder: Path, folds: list[str] | None, checkpoint_name: str) -> list[Path]:
    """Return the folders of the folds to export, in the order of their numbers, ``all`` last.

    Args:
        folder: a trained model's.
        folds: such as ``["0", "all"]``; ``None`` is every fold that has the checkpoint.
        checkpoint_name: which checkpoint.

    Raises:
        UserError: none, or not those.
    """
    if not re.fullmatch(CHECKPOINT_NAME, checkpoint_name):
        raise UserError(
            f"-chk {quoted(checkpoint_name)}: a name as checkpoint_final.pth is expected"
        )
    if folds is None:
        files = folder.glob(f"fold_*/{checkpoint_name}")
        found = (f.parent.name for f in files if re.fullmatch(FOLD_NAME, f.parent.name))
        folds = [name.removeprefix("fold_") for name in found]
        if not folds:
            raise UserError(f"no fold of {folder} has a {checkpoint_name}; see -chk")
    for fold in folds:
        if not re.fullmatch(FOLD_NAME, f"fold_{fold}"):
            raise UserError(f"-f {quoted(fold)}: numbers, or all, are expected")
        if not (folder / f"fold_{fold}" / checkpoint_name).is_file():
            raise UserError(f"there is no {folder}/fold_{fold}/{checkpoint_name}; see -f and -chk")
    return [folder / f"fold_{fold}" for fold in sorted(set(folds), key=order_of)]


def read_checkpoint(
    file: Path, plans: dict[str, Any], dataset: dict[str, Any], *, complete: bool
) -> dict[str, Any]:
    """Read a checkpoint, and complete an adapter checkpoint from the file that the plans name.

    Args:
        file: the checkpoint.
        plans: of the trained model.
        dataset: the content of its ``dataset.json``.
        complete: ``False`` leaves an adapter checkpoint as it is.

    Raises:
        UserError: not a checkpoint of these plans, or no file to complete it from.
    """
    content = read_safely(file)
    check_form(content, str(file))
    if content.get(REBUILT_FROM) and complete:
        network = network_of(plans, dataset)
        load_base_weights(network, plans[PLANS_KEY].get("weights"))
        fill_up(content["network_weights"], network)
        content[REBUILT_FROM] = None
    shapes = network_of(plans, dataset, in_memory=False)
    weights = dict(content["network_weights"])
    if not complete:
        fill_up(weights, shapes)  # what is left out on purpose
    check_fits(weights, shapes, str(file))
    return content
