"""Locks that end with the process that holds them, however it ends.

They are POSIX record locks (`fcntl.lockf`), not `flock`'s: a forked data worker inherits those, and
would hold a killed trainer's. In return a process loses one as soon as it closes any descriptor of
the file, so lock files are opened here alone, once each. NFS passes them on (docs/distributed.md).
"""

import contextlib
import datetime
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nnunet_vit_trainer.checkpoints.files import remove_leftovers
from vit_backbone import UserError, shorten

try:
    import fcntl
except ImportError:  # Windows: no locks, so two starts of one fold are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".training.lock"


def open_lock(folder: Path) -> IO[str]:
    """Open the lock file of a folder, which is made.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shorten(folder, 200)} cannot be written: {error.strerror}") from error


def try_lock(file: IO[str], *, exclusive: bool) -> bool | None:
    """Lock a file for this process alone, if nobody holds it, or wait until it can be shared.

    Args:
        file: of `open_lock`; closing it gives the lock up.
        exclusive: alone.

    Returns:
        Whether it was to be had; ``None`` where the system or the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


@contextlib.contextmanager
def hold_fold(folder: Path) -> Iterator[None]:
    """Own a fold while a run writes in it; what killed runs left half written is removed.

    Args:
        folder: ``fold_X`` of the results; it is made.

    Raises:
        UserError: another process holds it; says which, on which host. Or the disk is full.
    """
    with open_lock(folder) as file:
        held = try_lock(file, exclusive=True)
        if held is False:
            file.seek(0)
            owner = shorten(file.read(300).strip() or "another process", 100)
            raise UserError(
                f"{folder.name} of {shorten(folder.parent, 200)} is being trained or validated by "
                f"{owner}; wait for its end, or end it"
            )
        if held:
            remove_leftovers(folder)
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        owner = f"process {os.getpid()} on {socket.gethostname()}, since {now}\n"
        try:
            file.truncate(0)
            os.write(file.fileno(), owner.encode())  # a file's buffer would be tried again
        except OSError as error:
            raise UserError(
                f"{shorten(folder, 200)} cannot be written: {error.strerror}"
            ) from error
        yield
