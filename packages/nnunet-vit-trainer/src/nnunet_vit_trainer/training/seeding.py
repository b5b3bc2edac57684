"""The random numbers of a run that has a seed (``train.seed``)."""

import contextlib
import importlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

NNUNET: Any = importlib.import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")

WORKERS = "NonDetMultiThreadedAugmenter"


def seed_generators(*numbers: int) -> None:
    """Seed this process's generators: torch's, numpy's and Python's.

    Args:
        numbers: each at least 0, such as the run's seed, the rank and the epoch; all of them count.
    """
    for_torch, for_numpy, for_python = _seeds(numbers, 3)
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


@contextlib.contextmanager
def seeded_data_workers(*numbers: int) -> Iterator[None]:
    """Give the data workers that nnU-Net starts meanwhile seeds, each its own.

    nnU-Net starts them without, and then each takes its numbers from the operating system. With
    several workers for the training it is chance all the same whose batch comes first.

    Args:
        numbers: as in `seed_generators`.
    """
    start, loaders = getattr(NNUNET, WORKERS), itertools.count()

    def start_seeded(*arguments: Any, num_processes: int, **named: Any) -> Any:
        named["seeds"] = _seeds((*numbers, next(loaders)), num_processes)
        return start(*arguments, num_processes=num_processes, **named)

    setattr(NNUNET, WORKERS, start_seeded)
    try:
        yield
    finally:
        setattr(NNUNET, WORKERS, start)


def _seeds(numbers: tuple[int, ...], count: int) -> list[int]:
    return np.random.SeedSequence(numbers).generate_state(count).tolist()
