"""What nnU-Net's logs tell of a training: how long it took, and the memory where that was logged.

A fold has a log per start. A run that goes on begins with an epoch that an earlier one may have
trained already, but did not save; a run that begins anew begins with epoch 0.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_LOG = re.compile(r"training_log_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)\.txt")
_EPOCH = re.compile(r"\bEpoch (\d+)\s*$")
_SECONDS = re.compile(r"\bEpoch time: (\d+(?:\.\d+)?(?:e[+-]?\d+)?) s\b")
_SPLIT = re.compile(r"\bThis split has (\d+) training and \d+ validation cases\b")
_MEMORY = re.compile(r"\bPeak memory: (\d+(?:\.\d+)?) GiB\b")


@dataclass(frozen=True)
class Training:
    """How a fold was trained.

    Attributes:
        hours: of its epochs, each counted once, as the last run that trained it took for it;
            ``None`` where the logs do not tell of every epoch.
        gibibytes: peak memory; ``None`` where no log tells.
    """

    hours: float | None
    gibibytes: float | None


def read_training(fold: Path) -> Training:
    """Read the logs of a fold.

    Args:
        fold: its folder.
    """
    seconds: dict[int, float] = {}
    peaks: list[float] = []
    for log in _logs(fold):
        _read(log, seconds, peaks)
    complete = bool(seconds) and len(seconds) == max(seconds) + 1
    return Training(sum(seconds.values()) / 3600 if complete else None, max(peaks, default=None))


def read_training_cases(fold: Path) -> int | None:
    """Return how many cases a fold was trained on when it was last trained.

    Args:
        fold: its folder.

    Returns:
        ``None`` if no log tells.
    """
    trained = [text for log in _logs(fold) if _SECONDS.search(text := _text_of(log))]
    told = [match for text in trained if (match := _SPLIT.search(text))]
    return int(told[-1][1]) if told else None


def _text_of(log: Path) -> str:
    # A log that is being written, or was when the machine went down, may hold anything.
    return log.read_text(encoding="utf-8", errors="replace")


def _logs(fold: Path) -> list[Path]:
    """List the logs by when they were begun: months and days have no leading zero."""
    dated = [(match, f) for f in fold.iterdir() if (match := _LOG.fullmatch(f.name))]
    return [file for _, file in sorted(dated, key=lambda of: [int(n) for n in of[0].groups()])]


def _read(log: Path, seconds: dict[int, float], peaks: list[float]) -> None:
    epoch = None
    for line in _text_of(log).splitlines():
        if match := _EPOCH.search(line):
            if epoch is None:  # what an earlier run trained beyond its last checkpoint
                for later in [done for done in seconds if done >= int(match[1])]:
                    del seconds[later]
            epoch = int(match[1])
        elif (match := _SECONDS.search(line)) and epoch is not None:
            seconds[epoch] = float(match[1])
        elif match := _MEMORY.search(line):
            peaks.append(float(match[1]))
