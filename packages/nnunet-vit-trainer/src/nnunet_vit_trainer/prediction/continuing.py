"""Whether the masks of a folder are of the same model, folds and options."""

import contextlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_backbone import UserError

from .cases import BESIDE_MASKS
from .predictor import Predictor

OPTIONS = "vit_options"
"""The key of what masks depend on, beside nnU-Net's arguments."""


def check_continued(predictor: Predictor, output: Path, weights: Sequence[Path]) -> None:
    """Refuse to go on in a folder with masks of another model, other folds or other options.

    What nobody can tell any more passes: a run that was killed as it wrote that down, or stock
    prediction's.

    Args:
        predictor: the model.
        output: a folder, which need not exist.
        weights: see `options_of`.

    Raises:
        UserError: naming what differs.
    """
    arguments, dataset, plans = (_read_json(output / name) for name in BESIDE_MASKS)
    of, remedy = predictor.ensemble, "leave --continue_prediction away, or use other -o"
    for there, own in ((dataset, of.dataset), (plans, of.plans.plans)):
        if there and text_of(there) != text_of(own):
            raise UserError(f"{output} holds masks of another model; {remedy}")
    options, before = options_of(predictor, weights), arguments.get(OPTIONS)
    if not isinstance(before, dict):
        return
    for name, value in options.items():
        if before.get(name) != value:
            raise UserError(f"{output} holds masks of another model or options ({name}); {remedy}")


def options_of(predictor: Predictor, weights: Sequence[Path]) -> dict[str, Any]:
    """Return what masks depend on, beside the plans.

    Args:
        predictor: the model.
        weights: the checkpoints of the folds.
    """
    return {
        "weights": {file.parent.name: _checksum_of(file) for file in sorted(weights)},
        "step": predictor.step,
        "mirroring": [list(axes) for axes in predictor.mirrors],
    }


def _checksum_of(checkpoint: Path) -> str:
    """Return a checksum of the checksums that torch lays into a checkpoint, without reading it."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            parts = [(part.file_size, part.CRC) for part in archive.infolist()]
    except zipfile.BadZipFile:  # of torch before 1.6
        parts = [(checkpoint.stat().st_size, 0)]
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def text_of(content: dict[str, Any]) -> str:
    """Write JSON; what it does not know as text."""
    return json.dumps(content, indent=4, default=str)


def _read_json(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text())
        if isinstance(content, dict):
            return content
    return {}
