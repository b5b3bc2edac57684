"""What ``--quiet`` leaves of what is printed: warnings. nnU-Net prints beside its log too."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def warnings_alone() -> Iterator[None]:
    """Let standard output have nothing but what is printed with ``WARNING`` in it."""
    with contextlib.redirect_stdout(_Warnings(sys.stdout)):
        yield


class _Warnings(io.StringIO):
    """Collects what a `print` writes, and hands it on at its end where it warns."""

    def __init__(self, to: TextIO) -> None:
        super().__init__()
        self.to = to

    def write(self, text: str) -> int:
        super().write(text)
        if text.endswith("\n"):
            said = self.getvalue()
            self.seek(0)
            self.truncate()
            if "WARNING" in said:
                self.to.write(said)
        return len(text)
