"""Write a run's report: one HTML file with its pictures in it, and no network, font or script."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.pictures.validation import SHEET, read_validation

from .content import gather, read_run
from .curves import draw_curves

REPORT = "report.html"


def write_report(fold: Path, logged: Mapping[str, Sequence[Any]] | None = None) -> Path:
    """Write ``report.html`` into a fold's folder, and return it.

    The overlay sheet is in it if there is one.

    Args:
        fold: the fold's folder in a trained model's, with ``validation/summary.json``.
        logged: what nnU-Net's logger holds; ``None``: from the fold's checkpoint.

    Raises:
        UserError: no validation, or a checkpoint that cannot be read.
        OSError: what the disk says.
    """
    found = read_validation(fold)
    in_checkpoint, ours = read_run(fold)
    logged = in_checkpoint if logged is None else logged
    sheet = fold / SHEET
    page = _template().render(
        content=gather(fold, found, logged, ours),
        overlay=_embedded(sheet.read_bytes() if sheet.is_file() else None),
        curves=_embedded(draw_curves(logged)),
    )
    with written_whole(fold / REPORT) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return fold / REPORT


def _template() -> Any:
    """Return the page's template; whatever is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("nnunet_vit_trainer.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html")


def _embedded(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{base64.b64encode(png).decode()}"
