"""The thread that brings tiles to the device at prediction: its error is raised where they go.

nnU-Net's thread prints it, and whoever waits for the next tile waits for ever.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

PREDICTION: Any = importlib.import_module("nnunetv2.inference.predict_from_raw_data")


@contextlib.contextmanager
def told_tiles() -> Iterator[None]:
    """Let nnU-Net's predictor meanwhile raise what its thread of tiles runs into."""
    plain = PREDICTION.Thread, PREDICTION.Queue
    PREDICTION.Thread, PREDICTION.Queue = telling_thread, TellingQueue
    try:
        yield
    finally:
        PREDICTION.Thread, PREDICTION.Queue = plain


def telling_thread(
    target: Callable[..., None], args: tuple[Any, ...], daemon: bool = False
) -> threading.Thread:
    """Return a thread that puts its error into the queue that it fills.

    Args:
        target: the work.
        args: its arguments; the queue is the last.
        daemon: as of any thread; nnU-Net 2.8.0 does not say.
    """

    def work(*args: Any) -> None:
        try:
            target(*args)
        except Exception as error:
            args[-1].put(error)

    return threading.Thread(target=work, args=args, daemon=daemon)


class TellingQueue(Queue[Any]):
    """A queue that raises an error which was put into it."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return what was put, or raise it."""
        item = super().get(block, timeout)
        if isinstance(item, Exception):
            raise item
        return item
