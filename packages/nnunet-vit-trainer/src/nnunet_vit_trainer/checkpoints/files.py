"""Files that are written whole or not at all: what was there stays, if the disk is full or so."""

import contextlib
import glob
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

# Whoever writes touches the file all the time; a process id would mean nothing on another machine.
_SECONDS_UNTIL_LEFT_BEHIND = 3600


@contextlib.contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``file``, which takes its place in the end.

    Several processes may write the same file at once: one of their files stays, whole. What
    killed writers left behind is removed an hour later.

    Args:
        file: to write; its folder exists.

    Raises:
        OSError: what the disk says; the temporary file is removed then, as after any error.
    """
    for leftover in file.parent.glob(f"{glob.escape(file.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - leftover.stat().st_mtime > _SECONDS_UNTIL_LEFT_BEHIND:
                leftover.unlink()
    unfinished = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
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
