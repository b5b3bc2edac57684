"""What a person sees of a training: a live line in an epoch, and one that stays after it."""

import math
import time
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from statistics import mean
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from .peak import peak_bytes

Shown = Literal["all", "line", "warnings"]
"""What of the log is on the console too: all of it; a line per epoch in place of nnU-Net's; or
warnings alone."""

SHOWN: ContextVar[Shown] = ContextVar("SHOWN", default="all")
"""For the trainers that are made from now on."""

# nnU-Net's of each epoch, and ours: the rate of each parameter group, the summary.
_EPOCH_LINES = (
    *("Epoch", "Current learning rate:", "train_loss", "val_loss", "Pseudo dice", "Yayy!"),
    *("  ", "Summary of epoch"),
)
# nnU-Net's at the start: screens of numbers, and a drawing that needs what nobody installs.
_LONG = (
    "\nThis is the configuration used by this training:",
    "These are the global plan.json settings:",
    "Unable to plot network architecture:",
    "No module named 'hiddenlayer'",
)
_RECENT_EPOCHS = 10
# More do not fit into a terminal of 80 columns.
_CLASSES_ON_TERMINAL = 3


def shown_on(console: Console, quiet: bool) -> Shown:
    """Return what a run shows: on a terminal a line per epoch, in a pipe or file everything."""
    if quiet:
        return "warnings"
    return "line" if console.is_terminal else "all"


def is_shown(line: Sequence[Any]) -> bool:
    """Say whether a line of nnU-Net's log, or ours, goes to the console too; see `SHOWN`.

    Args:
        line: the parts that `print_to_log_file` gets.
    """
    text = " ".join(str(part) for part in line)
    if "WARNING" in text or SHOWN.get() == "all":
        return True
    return SHOWN.get() == "line" and bool(text) and not text.startswith(_EPOCH_LINES + _LONG)


class Figures(NamedTuple):
    """What an epoch came to.

    Attributes:
        epoch: from 0.
        num_epochs: planned.
        loss: mean of the training steps.
        val_loss: mean of the validation steps.
        learning_rate: of the head.
        dice: pseudo Dice per class, 0 to 1 or NaN.
    """

    epoch: int
    num_epochs: int
    loss: float
    val_loss: float
    learning_rate: float
    dice: Sequence[float]

    def dice_text(self, most: int | None = None) -> str:
        """Write the mean Dice, and that of each class, or of more than ``most`` the lowest."""
        known = [value for value in self.dice if not math.isnan(value)]
        if not known:
            return "Dice -"
        classes = " ".join(f"{value:.2f}" for value in self.dice)
        if most is not None and len(self.dice) > most:
            classes = f"lowest {min(known):.2f}"
        return f"Dice {mean(known):.3f}" + (f" ({classes})" if len(self.dice) > 1 else "")


class EpochDisplay:
    """The lines of one training, and the clock behind them.

    Args:
        device: that trains.
        images_per_step: of all ranks.
        console: to write on, where `SHOWN` is ``line``.
    """

    def __init__(
        self, device: torch.device, images_per_step: int, console: Console | None = None
    ) -> None:
        self.device = device
        self.images_per_step = images_per_step
        self.console = console or Console(highlight=False)
        self.recent: deque[float] = deque(maxlen=_RECENT_EPOCHS)
        self.start = self.last = time.perf_counter()
        self.waited = 0.0
        self.steps = 0
        self.left = ""
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def begin(self, epoch: int, num_epochs: int, steps: int) -> None:
        """Begin an epoch of so many steps, those of its validation among them."""
        self.start = self.last = time.perf_counter()
        self.waited, self.steps = 0.0, 0
        if SHOWN.get() == "line":
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=12),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[state]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task(f"epoch {epoch}/{num_epochs}", total=steps, state="")
            self.bar.start()

    def begin_step(self) -> None:
        """Note that a batch has come: until then it was waited for."""
        now = time.perf_counter()
        self.waited, self.last = self.waited + now - self.last, now

    def end_step(self, loss: float = math.nan) -> None:
        """Note that a step was taken; its loss, if it is known."""
        self.last = time.perf_counter()
        self.steps += 1
        if self.bar is not None:
            known = "" if math.isnan(loss) else f"loss {loss:.3f} "
            self.bar.update(self.task, advance=1, state=f"{known}{self._of_machine()}{self.left}")

    def end(self, figures: Figures) -> str:
        """End the epoch, leave its line on a terminal, and return the one for the log."""
        seconds = time.perf_counter() - self.start
        machine = self._of_machine()
        self.recent.append(seconds)
        left = (figures.num_epochs - figures.epoch - 1) * mean(self.recent)
        self.left = f" {duration(left)} left"
        self.close()
        head = f"epoch {figures.epoch}/{figures.num_epochs}"
        if SHOWN.get() == "line":
            dice = figures.dice_text(_CLASSES_ON_TERMINAL)
            rest = f"{dice} {duration(seconds)},{self.left}"
            self.console.print(f"{head} loss {figures.loss:.3f} {rest}", soft_wrap=True)
        return (
            f"Summary of {head}: loss {figures.loss:.4f}, validation {figures.val_loss:.4f}, rate "
            f"{figures.learning_rate:.3g}, {figures.dice_text()}, {machine}, {seconds:.1f} s,"
            f"{self.left}"
        )

    def close(self) -> None:
        """Take the live line away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _of_machine(self) -> str:
        seconds = max(self.last - self.start, 1e-9)
        memory = peak_bytes(self.device)
        used = "" if memory is None else f" {memory / 2**30:.1f} GiB"
        images = self.steps * self.images_per_step / seconds
        return f"{images:.3g} img/s{used} data {self.waited / seconds:.0%}"


def duration(seconds: float) -> str:
    """Write a time roughly: ``9 h 12 min``, ``12 min``, ``40 s``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
