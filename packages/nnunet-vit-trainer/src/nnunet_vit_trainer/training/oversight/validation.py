"""The final validation: it ends with a whole summary, or in one line, and never waits for ever."""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_KEY, FINAL
from nnunet_vit_trainer.training.seeding import NNUNET
from nnunet_vit_trainer.training.shortage.tiles import told_tiles
from nnunet_vit_trainer.training.shortage.workers import refuse_dead

EVALUATION: Any = importlib.import_module("nnunetv2.evaluation.evaluate_predictions")

_SUMMARY = "summary.json"
_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_TO_END = 1


@contextlib.contextmanager
def validated_whole(folder: Path, first: bool = True, checkpoint: str = FINAL) -> Iterator[None]:
    """Let nnU-Net validate: by pools that tell a killed process, and to a summary that is whole.

    nnU-Net, and whoever claims results, takes a ``summary.json`` as the sign of a validation that
    is complete. One that is there goes first: the masks beside it are written anew.

    Args:
        folder: the validation's; it need not exist.
        first: of the ranks that validate together; it writes the summary.
        checkpoint: that is validated; the summary names it where it is not the final one.
    """
    if first:
        (folder / _SUMMARY).unlink(missing_ok=True)
    plain = multiprocessing, compute = NNUNET.multiprocessing, NNUNET.compute_metrics_on_folder
    pools = Pools(multiprocessing)

    def compute_and_write(
        reference: str, predicted: str, file: str, *rest: Any, **named: Any
    ) -> Any:
        metrics = compute(reference, predicted, None, *rest, **named)
        said = {} if checkpoint == FINAL else {CHECKPOINT_KEY: checkpoint}
        with written_whole(Path(file)) as unfinished:
            EVALUATION.save_summary_json(metrics | said, str(unfinished))
        return metrics

    NNUNET.multiprocessing = EVALUATION.multiprocessing = pools
    NNUNET.compute_metrics_on_folder = compute_and_write
    try:
        with told_tiles():
            yield
    finally:
        NNUNET.multiprocessing, NNUNET.compute_metrics_on_folder = plain
        EVALUATION.multiprocessing = multiprocessing


class Pools:
    """What nnU-Net's validation uses of the module multiprocessing: contexts, and pools of them.

    Args:
        multiprocessing: the module.
    """

    def __init__(self, multiprocessing: Any) -> None:
        self.multiprocessing = multiprocessing

    def get_context(self, method: str) -> "Pools":
        """Return a context whose pools are watched."""
        return Pools(self.multiprocessing.get_context(method))

    def Pool(self, processes: int) -> "WatchedPool":  # noqa: N802 - multiprocessing's name
        """Start a pool."""
        return WatchedPool(self.multiprocessing.Pool(processes))


class WatchedPool:
    """A pool that tells when one of its processes was ended.

    multiprocessing starts another one instead, and waits for ever for what the first was to do.

    Args:
        pool: of multiprocessing.
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.processes = list(pool._pool)
        self._pool = [self] * len(self.processes)  # nnU-Net asks each whether it is alive

    def is_alive(self) -> bool:
        """Return that all processes are.

        Raises:
            UserError: saying how one ended.
        """
        refuse_dead(
            self.processes,
            "a process of the validation",
            "free memory, or start fewer (nnUNet_def_n_proc), then validate with --val",
        )
        return True

    def starmap_async(self, work: Callable[..., Any], arguments: Iterable[Any]) -> "WatchedResult":
        """Do as a pool's own."""
        return WatchedResult(self.pool.starmap_async(work, arguments), self)

    def starmap(self, work: Callable[..., Any], arguments: Iterable[Any]) -> list[Any]:
        """Do as a pool's own."""
        return self.starmap_async(work, arguments).get()

    def __enter__(self) -> "WatchedPool":
        return self

    def __exit__(self, *_: Any) -> None:
        whole = all(process.is_alive() for process in self.processes)
        ending = threading.Thread(target=self.pool.terminate, daemon=True)
        ending.start()
        if whole:
            ending.join()
            return
        # It may wait for a lock that the dead process held.
        ending.join(_SECONDS_TO_END)
        for process in self.pool._pool:
            process.kill()


class WatchedResult:
    """What a pool is to find, or the death of one of its processes.

    Args:
        result: of multiprocessing.
        pool: its.
    """

    def __init__(self, result: Any, pool: WatchedPool) -> None:
        self.result = result
        self.pool = pool
        self.ready = result.ready

    def get(self) -> list[Any]:
        """Wait for it.

        Raises:
            UserError: one of the pool's processes was ended meanwhile.
        """
        while not self.result.ready():
            self.result.wait(_SECONDS_BETWEEN_LOOKS)
            self.pool.is_alive()
        return self.result.get()
