"""What the steps of the epoch under way came to."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnunet_vit_trainer.training.step import Outcome

from .watch import StepWatch

Batches = Sequence[Mapping[str, Any]]


class EpochSteps:
    """The losses of an epoch's steps, and the steps whose outcome is not read yet.

    CUDA gets the next step before the outcome of the one before it is asked for.

    Args:
        refuse: raises for the batches of a step that was not taken, if they are at fault.
        remedy: see `StepWatch.count`.

    Attributes:
        losses: of the steps that were read, in their order; NaN where one was not taken.
        watch: counts those that were not taken, over all epochs.
    """

    def __init__(self, refuse: Callable[[Batches], None], remedy: str) -> None:
        self.refuse, self.remedy = refuse, remedy
        self.losses: list[float] = []
        self.watch = StepWatch()
        self._unread: deque[tuple[Outcome, Batches]] = deque()

    def add(self, outcome: Outcome, batches: Batches) -> None:
        """Note a step that was begun."""
        self._unread.append((outcome, batches))

    def read(self, ahead: int = 0) -> None:
        """Wait for the steps that are not read yet, but for the last ``ahead``; note their losses.

        Raises:
            UserError: see ``refuse`` and `StepWatch`.
        """
        while len(self._unread) > ahead:
            outcome, batches = self._unread.popleft()
            loss, taken = outcome.read()
            if not taken:
                self.refuse(batches)
            self.watch.count(taken, self.remedy)
            self.losses.append(loss if taken else math.nan)
