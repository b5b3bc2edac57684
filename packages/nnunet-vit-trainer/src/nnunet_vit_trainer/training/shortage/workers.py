"""nnU-Net's data workers, whose errors and whose death the process that trains tells.

As they are, a worker prints its error and ends; and where one is killed, others may wait for ever
for a lock that it held, or for the rest of a batch that it was sending.
"""

import contextlib
import signal
import traceback
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

import torch
from batchgenerators.dataloading import nondet_multi_threaded_augmenter as augmenter

from nnunet_vit_trainer.training.seeding import NNUNET, WORKERS
from vit_backbone import UserError

WORKER_FAILED = "a data worker failed"
"""How a worker's error begins, in the process that trains."""

_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_TO_END = 5
_ERROR = "error of a data worker"
_REMEDY = (
    "free memory, or start fewer (nnUNet_n_proc_DA; 0 loads without any), then continue with --c"
)
# Windows has neither.
_KILLERS = {
    getattr(signal, "SIGKILL", None): ", as the system does when memory runs out",
    getattr(signal, "SIGBUS", None): ", as when /dev/shm is full",
}


@contextlib.contextmanager
def watched_data_workers() -> Iterator[None]:
    """Watch the data workers that nnU-Net starts meanwhile, of training and validation together."""
    plain, group = getattr(NNUNET, WORKERS), list[WatchedWorkers]()

    def start(data_loader: Any, **named: Any) -> WatchedWorkers:
        workers = WatchedWorkers(ErrorsAsBatches(data_loader), **named)
        workers.group = group
        group.append(workers)
        return workers

    setattr(NNUNET, WORKERS, start)
    try:
        yield
    except BaseException:
        for workers in group:
            workers._finish()
        raise
    finally:
        setattr(NNUNET, WORKERS, plain)


class WatchedWorkers(augmenter.NonDetMultiThreadedAugmenter):
    """nnU-Net's own, but that whoever takes a batch learns of a worker's error or death.

    Attributes:
        group: those that are watched together: a dead one of any is told at the next batch.
        trouble: the error of the thread that hands batches on.
    """

    group: "list[WatchedWorkers]"
    trouble: Exception | None = None
    results_loop_queue: Any

    def __next__(self) -> dict[str, Any]:
        """Return a batch.

        Raises:
            UserError: a worker was ended.
            RuntimeError: a worker's error, with its traceback.
        """
        if not self.initialized:
            self._start()
        while True:
            for workers in self.group:
                workers.refuse_trouble()
            with contextlib.suppress(Empty):
                batch = self.results_loop_queue.get(timeout=_SECONDS_BETWEEN_LOOKS)
                if _ERROR in batch:
                    raise batch[_ERROR]
                return batch

    def refuse_trouble(self) -> None:
        """Refuse to go on when a worker has ended, or the thread that hands its batches on.

        Raises:
            UserError: a worker was ended, which mostly is the thread's trouble too.
            Exception: the thread's own.
        """
        if self.trouble is None:
            refuse_dead(self._processes)
            return
        for process in self._processes:
            process.join(_SECONDS_TO_END)
        refuse_dead([process for process in self._processes if process.exitcode])
        raise self.trouble

    def _start(self) -> None:
        module: Any = augmenter
        plain = module.results_loop

        def quietly(*arguments: Any) -> None:
            try:
                plain(*arguments)
            except Exception as error:
                self.trouble = error

        module.results_loop = quietly
        try:
            super()._start()
        finally:
            module.results_loop = plain

    def _finish(self, timeout: float = 10, force: bool = False) -> None:
        if any(not process.is_alive() for process in self._processes):
            self._give_up()
        else:
            super()._finish(timeout, force)

    def _give_up(self) -> None:
        """End the workers without asking them: that takes locks, which a dead one may hold."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._queue, self.results_loop_queue = [], None, None
        self.results_loop_thread = self.abort_event = self.pause_event = None
        self.initialized, self.trouble = False, None


class ErrorsAsBatches:
    """A data loader whose errors come as batches, on the way to the process that trains.

    Args:
        loader: nnU-Net's, of batches with tensors and lists of them.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.set_thread_id = loader.set_thread_id
        self.transforms = getattr(loader, "transforms", None)  # for nnU-Net's debug.json

    def __next__(self) -> dict[str, Any]:
        """Return a batch whose tensors lie in shared memory, or an error."""
        try:
            return shared(next(self.loader))
        except Exception as error:
            return {_ERROR: _sendable(error)}


def _sendable(error: Exception) -> Exception:
    """Return an error that surely can be sent; all but a user's and the system's with traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, error.strerror, error.filename)
    return RuntimeError(f"{WORKER_FAILED}: {traceback.format_exc()}")


def shared(batch: Any) -> Any:
    """Move a batch's tensors to shared memory, as sending them does.

    Where there is not enough of it, sending would fail in a thread that tells nobody.
    """
    if isinstance(batch, dict):
        return {key: shared(value) for key, value in batch.items()}
    if isinstance(batch, list):
        return [shared(value) for value in batch]
    return batch.share_memory_() if isinstance(batch, torch.Tensor) else batch


def refuse_dead(
    processes: list[BaseProcess], what: str = "a data worker", remedy: str = _REMEDY
) -> None:
    """Refuse to go on when one of some processes has ended.

    Args:
        processes: this one's own.
        what: what each is.
        remedy: what the message ends with.

    Raises:
        UserError: saying how one ended.
    """
    for process in processes:
        if process.is_alive():
            continue
        code = process.exitcode or 0
        if code >= 0:
            how = f"ended with exit code {code} (see what it printed above)"
        else:
            known = -code in iter(signal.Signals)
            name = signal.Signals(-code).name if known else f"signal {-code}"
            how = f"was ended by {name}{_KILLERS.get(-code, '')}"
        raise UserError(f"{what} (process {process.pid}) {how}; {remedy}")
