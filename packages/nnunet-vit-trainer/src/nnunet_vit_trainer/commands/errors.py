"""How commands end: one line for what a user can mend, no traceback."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from nnunet_vit_trainer.training.ending.processes import sigterm_raises
from vit_backbone import UserError


def one_line_errors(command: Callable[[], None]) -> Callable[[], None]:
    """Make a command print a `UserError` as one line and exit with 2; with 130 after Ctrl-C.

    SIGTERM ends it with clean-up too, and with 143.
    """

    @wraps(command)
    def run() -> None:
        # timm 1.0.22 scripts an interface, of which torch 2.15 warns in every process.
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:torch.jit._script")
        import warnings

        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\._script")
        try:
            with sigterm_raises():
                command()
        except UserError as error:
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None

    return run
