"""What ``--quiet`` leaves of what is printed: warnings. nnU-Net prints beside its log too."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def warnings_alone() -> Iterator[None]:
    """Let standard output have nothing but what is printed with ``WARNING`` in it."""
    stdout: Any = _Warnings(sys.stdout)
    with contextlib.redirect_stdout(stdout):
        try:
            yield
        finally:
            stdout.hand_on()


class _Warnings:
    """Standard output that collects what a `print` writes, and hands it on where it warns."""

    def __init__(self, to: TextIO) -> None:
        self.to, self.said = to, ""

    def write(self, text: str) -> int:
        self.said += text
        if text.endswith("\n"):
            self.hand_on()
        return len(text)

    def hand_on(self) -> None:
        if "WARNING" in self.said:
            self.to.write(self.said)
        self.said = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.to, name)
