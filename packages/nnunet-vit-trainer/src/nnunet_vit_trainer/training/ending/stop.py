"""Ending a training early: a signal asks for it, or a file that appears (``train.stop_file``).

Signals come to a process, not to a trainer, so what they asked for is kept here, for the process.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXIT_CODES: dict[int, int] = {
    getattr(signal, name): code
    for name, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 0))
    if hasattr(signal, name)
}
"""The signals that end a training, with the exit code after each; Windows has no SIGUSR1."""


class Stopped(SystemExit):
    """A training ends since a signal asked for it; the exit code is the signal's.

    Args:
        number: the signal's.
        saved: whether a checkpoint of this moment was written.
        has_checkpoint: whether one of this training was at an earlier moment; until one is, a
            fold's checkpoints are those of a training before.
    """

    def __init__(self, number: int, saved: bool, has_checkpoint: bool = False) -> None:
        super().__init__(EXIT_CODES[number])
        self.number = number
        self.saved = saved
        self.has_checkpoint = saved or has_checkpoint


class LastEpoch(Exception):  # noqa: N818 - not an error
    """The epochs end here, as if no more had been planned."""


@dataclass
class _Signals:
    asked: int = 0  # the first signal that had to wait
    wait: bool = False
    waited: bool = False
    interrupts: int = 0
    hear: list[Callable[[int], None]] = field(default_factory=list)


_signals = _Signals()


@contextlib.contextmanager
def signals_stop(hears: Callable[[int], None] | None = None) -> Iterator[None]:
    """Let SIGINT (Ctrl-C), SIGTERM and SIGUSR1 end this process: in a training, at its next step.

    Where none takes steps (`signals_wait`) they end it at once, by `Stopped` or KeyboardInterrupt
    and with clean-up; so does a second Ctrl-C. A second SIGTERM or SIGUSR1 changes nothing: queue
    systems send both.

    Args:
        hears: is called with the number of the first signal that has to wait, in its handler.

    Raises:
        ValueError: not in the main thread, the only one that may handle signals.
    """
    before = {number: signal.signal(number, _handle) for number in EXIT_CODES}
    _signals.hear.append(hears or _ignore)
    if len(_signals.hear) == 1:
        _reset()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _signals.hear.pop()
        if not _signals.hear:
            _reset()


def _handle(number: int, _frame: Any) -> None:
    _signals.interrupts += number == signal.SIGINT
    if number == signal.SIGINT and (_signals.interrupts > 1 or not _signals.wait):
        raise KeyboardInterrupt
    if not _signals.wait:
        # Where signals waited for steps, all of them are taken by now, or an error ended them.
        raise Stopped(number, saved=False, has_checkpoint=_signals.waited)
    if not _signals.asked:
        _signals.asked = number
        for hears in _signals.hear:
            hears(number)


def _ignore(number: int) -> None: ...


def _reset() -> None:
    _signals.asked, _signals.wait, _signals.waited, _signals.interrupts = 0, False, False, 0


def signals_wait(wait: bool = True) -> None:
    """From now on a signal waits until somebody looks for it (`asked_by`), or no longer does."""
    _signals.wait = wait
    _signals.waited |= wait


def asked_by() -> int:
    """Return the number of the signal that this process was asked by to end its training, or 0."""
    return _signals.asked


def stop_file_of(name: str, fold_folder: str | Path) -> Path | None:
    """Return the file whose appearance ends a run after the epoch; ``None`` without a name.

    Args:
        name: ``train.stop_file``: a path, ``~`` is the home; a relative one is below the next.
        fold_folder: of the fold's results.
    """
    return Path(fold_folder, os.path.expanduser(name)) if name else None


def is_there(stop_file: Path | None) -> bool:
    """Tell whether the file has appeared; one that cannot be looked for has not."""
    return stop_file is not None and os.path.isfile(stop_file)
