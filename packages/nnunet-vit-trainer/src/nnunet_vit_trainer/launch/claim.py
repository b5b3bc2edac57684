"""Whose a results folder and a plans file are: no run writes over another one's.

A results folder belongs to the config whose checkpoints or validation lie in it, or that is
training in it right now, which a lock tells. A start that failed before its first checkpoint
leaves a plans.json that nobody owns; the next config of the name takes its place.
"""

import contextlib
import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.plans.continuation import first_difference, refuse_other_model
from nnunet_vit_trainer.plans.datasets import read_json
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, shorten

try:
    import fcntl
except ImportError:  # Windows: no locks, so two starts in the same minute are not told apart
    fcntl = None  # type: ignore[assignment]

_LOCK = ".training.lock"
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
    plans = _read_while_written(folder / "plans.json")
    if PLANS_KEY not in plans:
        raise UserError(
            f"{shorten(folder, 200)} holds results that are not of nnUNetv2_train_vit; rename the "
            "config file, or move them away"
        )
    return plans


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a+")
    except OSError as error:
        raise UserError(f"{shorten(folder, 200)} cannot be written: {error.strerror}") from error
    with lock:
        alone = _lock(lock, exclusive=True)
        if not alone:
            _lock(lock, exclusive=False)  # whoever has just come first writes plans.json now
        existing = owned_plans(folder)
        if existing is not None:
            refuse_other_model(plans, existing, folder)
        elif alone:
            write_json(plans, file)
        else:
            _refuse_other_run(plans, file)
        _lock(lock, exclusive=False)
        yield


def _refuse_other_run(plans: dict[str, Any], file: Path) -> None:
    difference = first_difference(plans, _read_while_written(file))
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


def _read_while_written(file: Path) -> dict[str, Any]:
    """Read a plans.json that nnU-Net, at the start of another fold, may just be writing."""
    for _ in range(3):
        with contextlib.suppress(UserError):
            return read_json(file)
        time.sleep(0.3)
    return read_json(file)


def _lock(file: IO[str], *, exclusive: bool) -> bool:
    """Lock a file for this process alone, if nobody holds it, or share the lock.

    The kernel gives it up when the process ends, however it does; data workers do not inherit it.

    Returns:
        Whether it was to be had; ``True`` also where the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
