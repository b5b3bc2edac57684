"""Data loaders as light as can be, for tests of the processes that load data."""

import numpy as np
import torch

NOISE = torch.zeros(4)


class Loader:
    """Endless batches, in the form that nnU-Net's workers take.

    Args:
        size: of a batch, in float32 numbers.
        kind: ``tensors``, which are sent as handles of shared memory, or ``arrays``, whose bytes go
            through the queue's pipe.
        error: raised instead of a batch.
    """

    def __init__(self, size=2**18, kind="tensors", error=None):
        self.size, self.kind, self.error = size, kind, error

    def set_thread_id(self, number):
        self.number = number

    def __next__(self):
        if self.error is not None:
            raise self.error
        if self.kind == "arrays":
            return {"data": np.zeros(self.size, np.float32)}
        return {"data": torch.zeros(self.size), "target": [torch.zeros(2), NOISE]}


class CannotBeSent(Exception):
    """An error that pickle refuses."""

    def __init__(self):
        super().__init__("of a kind")
        self.lock = lambda: 0
