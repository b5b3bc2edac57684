"""nnU-Net's own planning code, as a command can call it: quiet, without forks, and in one line."""

import contextlib
import importlib
import io
import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from unittest import mock

from vit_backbone import UserError, reason_of

LISTS_FILES = importlib.import_module("nnunetv2.utilities.utils")


@contextlib.contextmanager
def nnunet_in_one_line(dataset: str) -> Iterator[None]:
    """Send what nnU-Net prints nowhere, tracebacks too, and say in one line what it runs into.

    It lists files by a pool of forked processes: such a child may wait for ever for a lock that
    another thread of this process held. Threads list them here. And it takes the number of data
    workers for one of threads, which may not be 0.

    Args:
        dataset: its name.

    Raises:
        UserError: for whatever nnU-Net's own code raises.
    """
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch("traceback.print_exc"),  # of a reader that fails, though the next may not
            mock.patch.object(LISTS_FILES, "Pool", ThreadPool),
            mock.patch.dict(os.environ, {"nnUNet_n_proc_DA": "1"}),
        ):
            yield
    except UserError:
        raise
    except Exception as error:  # asserts and lookups among them: it checks little beforehand
        raise UserError(
            f"nnU-Net cannot plan {dataset}: {type(error).__name__}: {reason_of(error)}; "
            f"nnUNetv2_extract_fingerprint -d {dataset[7:10]} --verify_dataset_integrity says more"
        ) from error
