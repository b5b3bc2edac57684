"""How processes end: the commands after SIGTERM, data workers with their trainer."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

_SECONDS_BETWEEN_LOOKS = 1

SECONDS_AFTER_SIGTERM = 20
"""A data worker goes on for so long: its trainer, which got the signal too, ends with a step."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does: with clean-up, its workers too.

    The exit code is 143, as of a process that does not handle it.

    Raises:
        ValueError: not in the main thread, the only one that may handle signals.
    """

    def end(*_: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """End this process, at once, when the one that started it by multiprocessing has ended.

    That process need not do anything for it, so it may be killed. It works for each of
    multiprocessing's start methods; does nothing in a process that was started otherwise.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    # A forked process's siblings hold the pipe behind its sentinel open; a forkserver's process
    # is not the trainer's child.
    is_child = os.getppid() == parent.pid
    while not wait([parent.sentinel], _SECONDS_BETWEEN_LOOKS):
        if is_child and os.getppid() != parent.pid:
            break
    os._exit(1)


class EndsWithTrainer:
    """A transform that changes nothing; the data worker that calls it ends with its trainer.

    nnU-Net's workers would wait for ever for somebody who takes their batches, and those of a rank
    hold its connections open, so that the other ranks would wait too. A transform is what runs in
    a worker however it was started.
    """

    def __init__(self) -> None:
        self.done_in = os.getpid()  # where data are loaded without workers there is nothing to do

    def __call__(self, **batch: Any) -> dict[str, Any]:
        """Return what is given; at the first call in a worker, begin to watch."""
        if os.getpid() != self.done_in:
            self.done_in = os.getpid()
            _leave_signals_to_trainer()
            end_with_parent()
        return batch


def _leave_signals_to_trainer() -> None:
    """Go on after what a terminal or a queue system sends to all processes of a run.

    The trainer takes a step yet, to save it. It ends its workers itself: at a flag that they look
    for, or, since they look once a second whether it is there, by its own end.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # A forked worker has its trainer's handler, whose clean-up waits for a full queue.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
