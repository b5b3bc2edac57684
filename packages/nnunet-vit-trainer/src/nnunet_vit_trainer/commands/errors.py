"""How commands end: one line for what a user can mend, no traceback."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn

from nnunet_vit_trainer.training.ending.processes import sigterm_raises
from vit_backbone import UserError, quoted, reason_of, shorten

# What is the matter with a disk or a path, and not with a program.
_OF_THE_DISK = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EIO, errno.EFBIG),
    getattr(errno, "EDQUOT", errno.ENOSPC),
}

# Python's words where every folder for temporary files is full, or may not be written; torch's
# import asks for one. The number of the error is that of a file that is not there.
_NO_TEMPORARY = "No usable temporary directory"

# nnU-Net's variables that count processes, and the least of each; it asks for them late.
_COUNTS = {"nnUNet_n_proc_DA": 0, "nnUNet_def_n_proc": 1}


def one_line_errors(command: Callable[[], None]) -> Callable[[], None]:
    """Make a command print a `UserError` as one line and exit with 2; with 130 after Ctrl-C.

    So it does with what a disk refuses, such as a folder that cannot be written to, and with
    nnU-Net's variables that are no number of processes. SIGTERM ends it with clean-up too, and with
    143. A letter that the terminal, or a pipe's encoding, does not know
    is written as ``\\xe4``.
    """

    @wraps(command)
    def run() -> None:
        # timm 1.0.22 scripts an interface, of which torch 2.15 warns in every process.
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:torch.jit._script")
        import warnings

        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\._script")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is
        try:
            _check_counts()
            with sigterm_raises():
                command()
        except UserError as error:
            _end(str(error), 2)
        except OSError as error:
            if str(error.strerror).startswith(_NO_TEMPORARY):
                remedy = "free some space, or set TMPDIR to a folder that can be written"
                _end(f"{shorten(error.strerror, 300)}; {remedy}", 2)
            if error.errno not in _OF_THE_DISK:
                raise
            _end(reason_of(error, 400), 2)
        except KeyboardInterrupt:
            _end("interrupted", 128 + signal.SIGINT)

    return run


def _end(said: str, code: int) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: {said}", file=sys.stderr)
    raise SystemExit(code) from None


def _check_counts() -> None:
    for name, least in _COUNTS.items():
        given = os.environ.get(name, str(least))
        if not (given.strip().isdecimal() and int(given) >= least):
            raise UserError(
                f"{name}={quoted(given)}: a number of processes is expected, at least {least}"
            )
