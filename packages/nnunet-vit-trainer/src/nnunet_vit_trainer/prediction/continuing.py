"""Whether the masks of a folder are of the same model, folds and options."""

import contextlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_backbone import UserError

from .cases import BESIDE_MASKS, Case
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


def begin_anew(
    predictor: Predictor, output: Path, cases: Sequence[Case], weights: Sequence[Path]
) -> dict[str, Any]:
    """Remove what an earlier prediction left of these cases, and say what to write down.

    If it stayed until it is replaced, a run that ends before would leave it to be taken for its own
    by `check_continued`.

    Args:
        predictor: the model.
        output: a folder, which need not exist.
        cases: to predict.
        weights: see `options_of`.

    Returns:
        The options; none, so that nobody goes on here, where masks of other cases lie in the folder
        that another model or other options may have made.

    Raises:
        OSError: what the disk says.
    """
    mark, ending = output / BESIDE_MASKS[0], predictor.ensemble.dataset["file_ending"]
    options = options_of(predictor, weights)
    if not mark.is_file():  # nothing there is a prediction's
        return options
    for case in cases:
        for of_case in (ending, ".npz", ".pkl"):
            (output / f"{case.name}{of_case}").unlink(missing_ok=True)
    images = {file.resolve() for case in cases for file in case.files}
    others = [file for file in output.glob(f"*{ending}") if file.resolve() not in images]
    alike = _read_json(mark).get(OPTIONS) == json.loads(text_of(options))
    return options if alike or not others else {}


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
