"""Install a model that somebody exported: checked, completed, and nothing of it run."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
import zipfile
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from nnunet_vit_trainer.checkpoints.base_weights import find_base_weights, load_base_weights
from nnunet_vit_trainer.checkpoints.content import (
    REBUILT_FROM,
    fill_up,
    frozen_names,
    write_atomically,
)
from nnunet_vit_trainer.checkpoints.model_folder import (
    CHECKPOINT_NAME,
    FOLD_NAME,
    describe_weights,
    network_of,
)
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.results.card.page import CARD, CITATION
from vit_backbone import UserError

from .archive import opened_export, unpack
from .contents import contents_of
from .foreign.checkpoint import check_fits, read_foreign_checkpoint
from .foreign.plans import check_foreign

if TYPE_CHECKING:
    from vit_backbone import ViTSegmentationModel

OPTION = "--checkpoint_path"
# Pickles (nnU-Net's postprocessing.pkl) would run code when they are applied.
_KNOWN = re.compile(
    rf"{FOLD_NAME}/{CHECKPOINT_NAME}|.+\.(json|png)|{re.escape(CARD)}|{re.escape(CITATION)}"
)
_JSON = json.JSONEncoder(indent=4)
# Of what a zip unpacks to: weights hardly shrink, but text does.
_UNPACKED_ALWAYS, _UNPACKED_PER_BYTE = 64 << 20, 10

# On the same file system as the target, and under a name that no nnU-Net command reads.
_STAGING = ".nnUNetv2_import_vit-"
_SECONDS_UNTIL_STALE = 24 * 3600


def import_vit(
    zip_file: str | Path,
    results: str | Path,
    checkpoint_path: str | Path | None = None,
    *,
    head: str | None = None,
) -> tuple[Path, list[str]]:
    """Install an export of `export_vit` so that stock ``nnUNetv2_predict`` finds it.

    Checkpoints are read as data only and written anew, so no code that somebody put into them
    survives; plans may name nnU-Net's own classes and installed heads alone. Nothing is installed
    unless everything fits, and nothing is written outside of the results folder.

    Args:
        zip_file: the export.
        results: the folder ``nnUNet_results``.
        checkpoint_path: the base weights, for an export without them.
        head: the module that an export names as its head, where that is not an installed head:
            it is imported, which runs it.

    Returns:
        The model's folder, and the files that were left out: none of the installed kinds.

    Raises:
        UserError: not such an export, one that would write elsewhere or is too large, a model that
            is installed already, base weights that are missing or others, a head that is not
            installed, or no space.
    """
    with opened_export(zip_file, "is not installed") as archive:
        return _install(archive, Path(results), checkpoint_path, head)


def _install(
    archive: zipfile.ZipFile, results: Path, checkpoint_path: str | Path | None, head: str | None
) -> tuple[Path, list[str]]:
    source = str(archive.filename)
    contents = contents_of(archive)
    plans, dataset = contents.plans, contents.dataset
    target = results / contents.dataset_name / contents.name
    if target.exists():
        raise UserError(f"{target} is there already; move it away first")
    check_foreign(plans, dataset, source, head)

    if weights := plans[PLANS_KEY]["weights"]:
        # A name, as our exports say it: a stranger's path would be opened here one day.
        weights["file"] = PureWindowsPath(weights["file"]).name

    known = {name: m for name, m in contents.files.items() if re.fullmatch(_KNOWN, name)}
    # Both are written into each checkpoint too.
    copies = 1 + sum(name.endswith(".pth") for name in known)
    taken = copies * sum(map(_size_of, (plans, dataset)))
    limit = _UNPACKED_ALWAYS + _UNPACKED_PER_BYTE * Path(source).stat().st_size
    results.mkdir(parents=True, exist_ok=True)
    _remove_stale(results)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=results))
    try:
        unpack(archive, known, staging, limit, taken)
        _complete(staging, plans, dataset, checkpoint_path, source)
        for name, content in (("plans.json", plans), ("dataset.json", dataset)):
            (staging / name).write_text(_JSON.encode(content), encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp's is for the owner alone
        _put(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target, sorted(contents.files.keys() - known.keys())


def _size_of(content: dict[str, Any]) -> int:
    """Return how long it is as it is written: what is nested deeply is indented as far."""
    return sum(map(len, _JSON.iterencode(content)))


def _complete(
    staging: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    checkpoint_path: str | Path | None,
    source: str,
) -> None:
    """Fill up the checkpoints, see that each fits the network, and write each anew."""
    files = sorted(staging.glob("fold_*/checkpoint_*.pth"))
    if not files:
        raise UserError(f"{source} holds no checkpoint")
    (configuration,) = plans["configurations"]
    network = network_of(plans, dataset, in_memory=False)
    base = None
    for file in files:
        name = f"{source}: {file.relative_to(staging).as_posix()}"
        content = read_foreign_checkpoint(file, configuration, name)
        partial = bool(content.get(REBUILT_FROM))
        # Before its plans are built in memory, of whatever size they say.
        check_fits(
            content["network_weights"], network, name, frozen_names(network) if partial else set()
        )
        if partial:
            if base is None:
                base = _base_of(plans, dataset, checkpoint_path)
            fill_up(content["network_weights"], base)
        content[REBUILT_FROM] = None
        content["init_args"] |= {"plans": plans, "dataset_json": dataset}
        write_atomically(content, file)
    if checkpoint_path is not None and base is None:
        raise UserError(f"this export is whole; leave {OPTION} away")


def _base_of(
    plans: dict[str, Any], dataset: dict[str, Any], checkpoint_path: str | Path | None
) -> "ViTSegmentationModel":
    """Build the network with the receiver's own weights, and name their place in the plans."""
    weights = plans[PLANS_KEY]["weights"]
    if weights is None:
        raise UserError("this export comes without its base weights, and does not say which")
    if checkpoint_path is None:
        raise UserError(
            f"this export comes without its base weights; get {describe_weights(plans)}, and "
            f"give the file with {OPTION}"
        )
    weights["file"] = str(Path(os.path.expanduser(checkpoint_path)).resolve())
    find_base_weights(weights, OPTION)
    network = network_of(plans, dataset)
    load_base_weights(network, weights)
    return network


def _put(staging: Path, target: Path) -> None:
    """Move the finished folder to its place, at once, unless another import was faster."""
    target.parent.mkdir(exist_ok=True)
    try:
        staging.rename(target)
    except OSError as error:
        if target.exists():
            raise UserError(f"{target} is there already; move it away first") from error
        with contextlib.suppress(OSError):  # others' models are in it
            target.parent.rmdir()
        raise


def _remove_stale(results: Path) -> None:
    """Remove what imports that were killed left behind; none takes a day."""
    for folder in results.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):  # another import was faster, or it is another user's
            if time.time() - folder.stat().st_mtime > _SECONDS_UNTIL_STALE:
                shutil.rmtree(folder)
