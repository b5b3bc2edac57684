"""Read one weight file without running any code in it, and without holding it in memory twice."""

import argparse
import contextlib
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from vit_backbone.errors import WeightsError, quoted, reason_of, shorten

from .pickles import check_pickle, check_torch_zip

# What the zoo's training checkpoints carry beside tensors, all of it data: RETFound's arguments,
# and numpy's scalars under both names that numpy had for them.
_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
]
_ZIP = b"PK\x03\x04"
_OTHERS = {b"\x93NUMPY": "NumPy's", b"\x89HDF": "HDF5's", b"GGUF": "llama.cpp's"}
_LEGACY_PICKLES = 5  # a magic number, a version, the machine, the content, the storages' keys


_allowing = threading.RLock()


@contextlib.contextmanager
def allowed_in_files(classes: list[Any]) -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` take some classes, in one thread at a time.

    torch's list is the process's: threads that enter and leave its context take the classes from
    each other, and good files are refused.

    Args:
        classes: as ``torch.serialization.safe_globals`` takes them.
    """
    with _allowing, torch.serialization.safe_globals(classes):
        yield


def read_file(file: Path) -> Any:
    """Return what a file holds; its tensors are mapped from it, not copied.

    So loading takes memory for the backbone that is filled alone: the file's own pages can be
    dropped at any time. Only the format that torch wrote before version 1.6 is read as a whole.

    Args:
        file: .safetensors, or a torch file of any suffix.

    Raises:
        WeightsError: unreadable, damaged, or holding code.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(9)
        if start[8:] == b"{":  # a length of 8 bytes, then JSON
            return load_file(file)
        _refuse_other_formats(file, start)
        is_zip = start.startswith(_ZIP)
        if is_zip:
            _check_records(file)
        else:
            _check_pickles(file)
        with allowed_in_files(_SAFE), file.open("rb") as stream:
            if file.suffix == ".safetensors":  # torch 2.15 would go by the name, not the content
                return torch.load(stream, map_location="cpu", weights_only=True)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except WeightsError:
        raise
    except Exception as error:  # a stranger's bytes fail in any way
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{file} is a TorchScript program (as OpenAI's CLIP files are), no data alone; if "
                "you trust it, save torch.jit.load(FILE).state_dict() and give that file"
            ) from error
        raise WeightsError(f"{file} cannot be read as a weight file: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say what is wrong with a file, and what to do; torch advises to run the code in it."""
    if isinstance(error, pickle.UnpicklingError) and (
        code := re.search(r"GLOBAL (\S+)", str(error))
    ):
        return (
            f"it holds more than data ({shorten(code[1], 80)}); where it comes from, save the "
            "model's state_dict() and give that file"
        )
    if isinstance(error, OSError):
        return reason_of(error)
    return f"{reason_of(error)}; copy or download it anew, whole, as a torch or safetensors file"


def _refuse_other_formats(file: Path, start: bytes) -> None:
    """Refuse whole files of formats that no downloading anew would mend."""
    kind = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), None)
    if start.startswith(_ZIP) and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            kind = "NumPy's"
    if kind is not None:
        raise WeightsError(
            f"{file} is in {kind} format; save the model's state_dict() by torch.save or "
            "safetensors and give that file"
        )


def _check_records(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return  # TorchScript, which torch.load refuses
        damaged = check_torch_zip(archive, file.stat().st_size)
    if damaged is not None:
        raise WeightsError(f"{file} is damaged (in {quoted(damaged)}); copy or download it anew")


def _check_pickles(file: Path) -> None:
    """Look through the pickles that torch wrote one after the other before version 1.6."""
    with file.open("rb") as stream:
        for _ in range(_LEGACY_PICKLES):
            check_pickle(stream)
