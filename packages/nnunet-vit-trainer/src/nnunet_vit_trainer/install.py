"""Install a model that somebody exported: checked, completed, and nothing of it run."""

import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from vit_backbone import UserError

from .base_weights import find_base_weights, load_base_weights
from .checkpoints import REBUILT_FROM, fill_up, read_safely, write_atomically
from .model_folder import check_plans, describe_weights, network_of
from .plans import PLANS_KEY

OPTION = "--checkpoint_path"
_CHECKPOINT = r"fold_(?:\d+|all)/checkpoint_\w+\.pth"
# Pickles (nnU-Net's postprocessing.pkl) would run code when they are applied.
_DATA = r".+\.(json|png)"


def import_vit(
    zip_file: str | Path, results: str | Path, checkpoint_path: str | Path | None = None
) -> tuple[Path, list[str]]:
    """Install an export of `export_vit` so that stock ``nnUNetv2_predict`` finds it.

    Checkpoints are read as data only and written anew, so no code that somebody put into them
    survives. Nothing is installed unless everything fits.

    Args:
        zip_file: the export.
        results: the folder ``nnUNet_results``.
        checkpoint_path: the base weights, for an export without them.

    Returns:
        The model's folder, and the files that were left out: none of the installed kinds.

    Raises:
        UserError: not such an export, one that would write elsewhere, a model that is installed
            already, base weights that are missing or others, or a head that is not installed.
    """
    if not Path(zip_file).is_file():
        raise UserError(f"{zip_file}: no such file")
    try:
        with zipfile.ZipFile(zip_file) as archive:
            return _install(archive, Path(results), checkpoint_path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{zip_file} cannot be read as a zip: {error}") from error


def _install(
    archive: zipfile.ZipFile, results: Path, checkpoint_path: str | Path | None
) -> tuple[Path, list[str]]:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    model = model_of(names, str(archive.filename))
    target = results / model
    if target.exists():
        raise UserError(f"{target} is there already; move it away first")
    plans, dataset = (_read_json(archive, f"{model}/{n}.json") for n in ("plans", "dataset"))
    check_plans(plans, target.name, str(archive.filename))
    results.mkdir(parents=True, exist_ok=True)
    # On the same file system, and under a name that no nnU-Net command reads.
    staging = Path(tempfile.mkdtemp(prefix=".import-", dir=results))
    try:
        left_out = _unpack(archive, model, names, staging)
        _complete(staging, plans, dataset, checkpoint_path)
        (staging / "plans.json").write_text(json.dumps(plans, indent=4), encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp's is for the owner alone
        target.parent.mkdir(exist_ok=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target, left_out


def model_of(names: list[str], source: str) -> str:
    """Return the one model's folder that a zip's files lie in, ``<dataset>/<model>``.

    Args:
        names: the files in the zip.
        source: the zip, for messages.

    Raises:
        UserError: a name that leads elsewhere, or more than one model.
    """
    for name in names:
        if name.startswith("/") or ".." in PurePosixPath(name).parts or re.search(r"[\\:]", name):
            raise UserError(f"{source}: {name!r} would be written elsewhere; nothing is installed")
    models = {"/".join(PurePosixPath(name).parts[:2]) for name in names}
    found = models.pop() if models else ""
    if models or not re.fullmatch(r"Dataset\d{3}_[^/]+/[^/]+__[^/]+__[^/]+", found):
        raise UserError(f"{source} is not an export of nnUNetv2_export_vit: not one model in it")
    return found


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        return json.loads(archive.read(name))
    except (KeyError, ValueError) as error:
        raise UserError(f"{archive.filename}: no readable {name}: {error}") from error


def _unpack(archive: zipfile.ZipFile, model: str, names: list[str], staging: Path) -> list[str]:
    """Write the known kinds of files, and return the names of the others."""
    left_out = []
    for name in names:
        inside = name.removeprefix(f"{model}/")
        if not re.fullmatch(f"{_CHECKPOINT}|{_DATA}", inside):
            left_out.append(inside)
            continue
        (staging / inside).parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, (staging / inside).open("wb") as file:
            shutil.copyfileobj(source, file)
    return left_out


def _complete(
    staging: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    checkpoint_path: str | Path | None,
) -> None:
    """Fill up the checkpoints, see that each fits the network, and write each anew."""
    files = sorted(staging.glob("fold_*/checkpoint_*.pth"))
    if not files:
        raise UserError("the zip holds no checkpoint")
    network, base_is_loaded = network_of(plans, dataset), False
    for file in files:
        content = read_safely(file)
        if content.get(REBUILT_FROM):
            if not base_is_loaded:
                _load_base(network, plans, checkpoint_path)
                base_is_loaded = True
            fill_up(content["network_weights"], network)
            content[REBUILT_FROM] = None
        try:
            network.load_state_dict(content["network_weights"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{file.name} does not fit its plans: {reason}") from error
        content["init_args"]["plans"] = plans
        write_atomically(content, file)
    if checkpoint_path is not None and not base_is_loaded:
        raise UserError(f"this export is whole; leave {OPTION} away")


def _load_base(
    network: nn.Module, plans: dict[str, Any], checkpoint_path: str | Path | None
) -> None:
    """Load the receiver's own weights, and name their place in the plans."""
    if checkpoint_path is None:
        raise UserError(
            f"this export comes without its base weights; get {describe_weights(plans)}, and "
            f"give the file with {OPTION}"
        )
    weights = plans[PLANS_KEY]["weights"]
    weights["file"] = str(Path(checkpoint_path).expanduser().resolve())
    find_base_weights(weights, OPTION)
    load_base_weights(network, weights)
