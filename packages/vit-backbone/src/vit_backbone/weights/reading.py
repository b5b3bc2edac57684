"""Read one weight file without running any code in it, and without holding it in memory twice."""

import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from vit_backbone.errors import WeightsError, quoted, reason_of

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
        is_zip = start.startswith(_ZIP)
        if is_zip:
            _check_records(file)
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except WeightsError:
        raise
    except Exception as error:  # a stranger's bytes fail in any way
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{file} is a TorchScript program (as OpenAI's CLIP files are), no data alone; if "
                "you trust it, save torch.jit.load(FILE).state_dict() and give that file"
            ) from error
        raise WeightsError(f"{file} cannot be read as a weight file: {reason_of(error)}") from error


def _check_records(file: Path) -> None:
    """Refuse what torch would map as it lies there: packed records, and damaged ones.

    torch itself looks at no checksum, so a byte that a download changed would be a weight.
    """
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if any(record.filename.endswith("/constants.pkl") for record in records):
            return  # TorchScript, which torch.load refuses
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise WeightsError(
                f"{file} is compressed inside, which torch.save never does; unzip it, or save its "
                "content anew"
            )
        # torch.serialization.set_crc32_options(False) leaves all of them 0.
        damaged = archive.testzip() if any(record.CRC for record in records) else None
    if damaged is not None:
        raise WeightsError(f"{file} is damaged (in {quoted(damaged)}); copy or download it anew")
