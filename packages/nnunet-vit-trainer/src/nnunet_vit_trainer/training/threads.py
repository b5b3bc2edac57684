"""Keep data loading to one thread without looking for the libraries at each batch."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from nnunetv2.training.dataloading import data_loader
from threadpoolctl import ThreadpoolController


class FindsLibrariesOnce:
    """A transform that changes nothing, but how nnU-Net's loader limits the threads of libraries.

    For each batch it asks `threadpoolctl` for it, which reads the process's memory map each time:
    5 to 16 ms, of 16 for a batch of three slices of a brain MR in one thread. A transform is what
    runs in a data worker however it was started.
    """

    def __call__(self, **sample: Any) -> dict[str, Any]:
        """Return what is given."""
        module: Any = data_loader
        module.threadpool_limits = _limit
        return sample


def _limit(limits: int, user_api: str | None) -> AbstractContextManager[Any]:
    return _controller().limit(limits=limits, user_api=user_api)


@cache
def _controller() -> ThreadpoolController:
    """Look for this process's libraries, at its first batch: all of them are loaded by then."""
    return ThreadpoolController()
