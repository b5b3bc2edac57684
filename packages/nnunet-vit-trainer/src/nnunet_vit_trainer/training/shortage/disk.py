"""What the file system refuses, and data that are gone: in one line."""

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vit_backbone import UserError, shorten

_GO_ON = "then continue with --c (the checkpoints that were there are whole)"
_REMEDIES = {
    errno.ENOSPC: f"free some space, {_GO_ON}",
    errno.EDQUOT: f"free some of your quota, {_GO_ON}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f), {_GO_ON}",
    errno.EMFILE: f"raise the limit of open files (ulimit -n), {_GO_ON}",
    errno.EACCES: f"let it be written and read, {_GO_ON}",
    errno.EPERM: f"let it be written and read, {_GO_ON}",
    errno.EROFS: f"let it be written, {_GO_ON}",
    errno.ENOENT: f"put it back, {_GO_ON}",
    errno.ENOTDIR: f"put it back, {_GO_ON}",
    errno.ESTALE: f"see what became of its disk, {_GO_ON}",
    errno.EIO: f"see what became of its disk, {_GO_ON}",
}


@contextlib.contextmanager
def disk_in_one_line(results: Path, data: Path, cases: int | None) -> Iterator[None]:
    """Raise what a disk refuses meanwhile, or data that went away, as a `UserError`.

    Args:
        results: the folder that is written to, for errors that name no file.
        data: the folder of preprocessed cases.
        cases: how many there were; ``None`` where nobody knows.

    Raises:
        UserError: a full disk, no permission, files that are gone, too many open ones.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError):
            raise
        # Readers have all kinds of errors for a file that is not there.
        said = missing_data(data, cases) or refusal(error, results)
        if said is None:
            raise
        raise UserError(said) from error


def check_writable(folder: Path) -> None:
    """Make a folder where a run is to write, and a file in it, which goes at once.

    nnU-Net tries for seconds to write each line of its log, and goes on without.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def refusal(error: BaseException, folder: Path) -> str | None:
    """Say in one line what the file system refused, or ``None`` for any other error.

    Args:
        error: what was raised.
        folder: where the file lies, if the error names none.
    """
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    file = error.filename if isinstance(error.filename, str | Path) else f"a file of {folder}"
    return f"{shorten(file, 150)}: {error.strerror}; {_REMEDIES[error.errno]}"


def missing_data(folder: Path, cases: int | None) -> str | None:
    """Say in one line which preprocessed data are gone, or ``None`` if all are there.

    Args:
        folder: of preprocessed cases.
        cases: see `disk_in_one_line`.
    """
    try:
        names = {file.name for file in folder.iterdir()}
    except OSError as error:
        return f"{shorten(folder, 150)}: {error.strerror}; put the preprocessed data back, {_GO_ON}"
    known = [name.removesuffix(".pkl") for name in names if name.endswith(".pkl")]
    whole = [
        case
        for case in known
        if f"{case}.npz" in names or {f"{case}.b2nd", f"{case}_seg.b2nd"} <= names
    ]
    expected = max(len(known), cases or 0)
    if len(whole) == expected:
        return None
    return (
        f"{expected - len(whole)} of {expected} cases of {shorten(folder, 150)} are gone; put the "
        f"preprocessed data back (nnUNetv2_preprocess), {_GO_ON}"
    )
