"""A trainer as light as can be, for test_processes.py: three data workers, and nothing else.

Like nnU-Net's, they put batches into a queue that nobody empties any more.
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

from nnunet_vit_trainer.training.ending import processes
from nnunet_vit_trainer.training.ending.processes import EndsWithTrainer, sigterm_raises

processes.SECONDS_AFTER_SIGTERM = 1  # nnU-Net's workers look for a flag, these wait for it


def load(transform, queue, folder):
    """Load data, and say in the folder that this worker has begun."""
    while True:
        batch = transform(image=bytes(2**20))
        (folder / str(os.getpid())).touch()
        queue.put(batch)


def train(method, folder):
    """Start the workers by one of multiprocessing's methods, and wait to be ended."""
    context = multiprocessing.get_context(method)
    queue = context.Queue(1)
    transform = EndsWithTrainer()
    with sigterm_raises():
        for _ in range(3):
            context.Process(target=load, args=(transform, queue, folder), daemon=True).start()
        time.sleep(3600)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
