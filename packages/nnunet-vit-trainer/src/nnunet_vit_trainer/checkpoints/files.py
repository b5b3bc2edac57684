"""Files and folders that are written whole or not at all, if the disk is full or so."""

import contextlib
import errno
import functools
import glob
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

# Of writers in other places: whoever writes touches the file all the time.
_SECONDS_UNTIL_LEFT_BEHIND = 3600
# Of a folder: nobody touches it while the files below it are written.
_SECONDS_OF_A_FOLDER = 24 * 3600
_TEMPORARY = re.compile(r"\.(?P<place>[0-9a-f]{12})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp")
_TEMPORARY_OF_0_1_0 = re.compile(r"\.[0-9a-f]{32}\.tmp")


@contextlib.contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``file``, which takes its place in the end.

    Several processes may write the same file at once: one of their files stays, whole. What
    killed writers of this file left is removed first, if they were here (the same machine and
    container), and else an hour later.

    Args:
        file: to write; its folder exists. A link's target is written, the link stays. What is no
            regular file, such as /dev/stdout, is itself yielded and written into.

    Raises:
        OSError: what the disk says; the temporary file is removed then, as after any error.
    """
    if file.exists() and not file.is_file():  # the rename would replace a device
        yield file
        return
    file = Path(os.path.realpath(file))  # Path.resolve raises for links that go round
    for leftover in file.parent.glob(f"{glob.escape(file.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if _is_left_behind(leftover, _SECONDS_UNTIL_LEFT_BEHIND):
                leftover.unlink()
    unfinished = file.with_name(f"{file.name}.{_owner()}.tmp")
    try:
        yield unfinished
        with unfinished.open("r+b") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    # The rename is safe from a power failure when the folder is; not every system can do that.
    with contextlib.suppress(OSError):
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``, which takes its name in the end.

    Its name begins with a dot, so that nobody takes it for what it is not yet. What killed writers
    of such folders left beside it is removed first, if they were here, and else a day later.

    Args:
        folder: to write; it must not exist, and the folder that it is in must.

    Raises:
        OSError: what the disk says, or that there is such a folder by now; the temporary folder is
            removed then, as after any error.
    """
    _remove_left_folders(folder.parent)
    unfinished = folder.with_name(f".{folder.name}.{_owner()}.tmp")
    unfinished.mkdir()
    try:
        yield unfinished
        if os.path.lexists(folder):  # an empty one would be replaced
            raise FileExistsError(errno.EEXIST, "it is there by now", str(folder))
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder of this process's own in another one; in the end it is removed.

    Its name begins with a dot. What killed processes left there goes as by `folder_written_whole`.

    Args:
        parent: where files are to be moved to from it; it exists.

    Raises:
        OSError: what the disk says.
    """
    _remove_left_folders(parent)
    folder = parent / f".unfinished.{_owner()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else writes in now.

    Args:
        folder: of which the caller holds the lock; those below it are not looked at.
    """
    for file in folder.glob("*.tmp"):
        if _TEMPORARY.search(file.name) or _TEMPORARY_OF_0_1_0.search(file.name):
            with contextlib.suppress(OSError):  # another user's
                file.unlink()


def _remove_left_folders(parent: Path) -> None:
    for leftover in parent.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            ours = leftover.is_dir() and _TEMPORARY.search(leftover.name)
            if ours and _is_left_behind(leftover, _SECONDS_OF_A_FOLDER):
                shutil.rmtree(leftover)


def _owner() -> str:
    """Name this process in a temporary file's name, so that others know whether it lives."""
    return f"{_place()}-{os.getpid()}-{_start_of(os.getpid())}-{uuid.uuid4().hex[:8]}"


def _is_left_behind(temporary: Path, seconds: float) -> bool:
    owner = _TEMPORARY.search(temporary.name)
    if owner and owner["place"] == _place() and int(owner["start"]):
        return _start_of(int(owner["pid"])) != int(owner["start"])
    return time.time() - temporary.stat().st_mtime > seconds


@functools.cache
def _place() -> str:
    """Name where a process id means something: this host, since it was booted, this container."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]


def _start_of(pid: int) -> int:
    """Say when a process began, in Linux's ticks, since its id may be another's by now.

    Returns:
        0 of one that has ended, and of all where there is no /proc.
    """
    try:
        # The name, in parentheses, may hold anything; state is the field after it.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
