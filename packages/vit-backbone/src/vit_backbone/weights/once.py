"""Weight files are read and hashed once, as long as they stay as they are. No torch here."""

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

State = tuple[tuple[str, int, int, int, int, int], ...]
# Not small, since each block waits for Python's lock: `hash_ahead` hashes beside imports.
# Not mapped: who writes the file anew meanwhile would end this process (SIGBUS).
_BLOCK = 2**22

_kept: "ContextVar[dict[State, Checkpoint] | None]" = ContextVar("kept", default=None)
_begun: dict[State, threading.Thread] = {}


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Keep what `read_checkpoint` reads in this block until a backbone is filled from it.

    Whoever asks for the same file again gets what was read before. What cannot be mapped (torch's
    format from before version 1.6) takes its memory until then, and no longer than the block.
    """
    before = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(before)


def kept(state: State | None) -> "Checkpoint | None":
    """Return what was read of files that are in this state, if it is there still."""
    contents = _kept.get()
    return None if contents is None or state is None else contents.get(state)


def keep(state: State | None, checkpoint: "Checkpoint") -> None:
    """Keep what was read of files, inside of `reading_once`; only the last is kept."""
    let_go()
    contents = _kept.get()
    if contents is not None and state is not None:
        contents[state] = checkpoint


def let_go() -> None:
    """Keep nothing any more, since a backbone has been filled."""
    if (contents := _kept.get()) is not None:
        contents.clear()


def state_of(files: Sequence[Path]) -> State | None:
    """Return what changes when a file is written to or replaced; ``None`` where one is not there.

    A file has one state whatever link it is reached by: the hub's cache is one of links. The time
    of the last change of its entry (``ctime``) is part of it: nobody sets that one back.
    """
    try:
        stats = [(os.path.realpath(file), file.stat()) for file in files]
    except OSError:
        return None
    return tuple(
        (place, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for place, s in stats
    )


def sha256_of_files(files: Sequence[Path]) -> str:
    """Return the hexadecimal sha256 of files one after the other.

    Raises:
        OSError: one cannot be read.
    """
    state = state_of(files)
    if (begun := _begun.pop(state, None)) is not None:
        begun.join()
    places = [Path(os.path.realpath(file)) for file in files]
    return _sha256_in(state, *places) if state else _sha256_in.__wrapped__(state, *places)


def hash_ahead(file: Path) -> None:
    """Begin to hash a file beside what comes next; `sha256_of_files` waits for it.

    Args:
        file: one that cannot be read is left to `sha256_of_files`.
    """
    state = state_of([file])
    if state is None or state in _begun:
        return

    def hash_it() -> None:
        with contextlib.suppress(OSError):
            _sha256_in(state, Path(os.path.realpath(file)))

    _begun[state] = threading.Thread(target=hash_it, daemon=True)  # a refused run does not wait
    _begun[state].start()


@functools.lru_cache(maxsize=8)
def _sha256_in(_: State | None, *files: Path) -> str:
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                digest.update(block[:size])
    return digest.hexdigest()
