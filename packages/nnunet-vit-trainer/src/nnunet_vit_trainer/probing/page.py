"""A probe on the terminal, at most 80 columns wide."""

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from nnunet_vit_trainer.results.comparison.page import fitting_parts
from nnunet_vit_trainer.results.comparison.tables import Table
from vit_backbone import shorten

from .crossing.validate import Scores
from .run import Probed
from .table import Row

_WIDTH = 80
_LONGEST_NAME = 24
_ORDER = "fine-tuning keeps the order of weights, not always that of taps, patches"
"""Measured: docs/probing.md."""


def print_probe(probed: Probed, console: Console | None = None) -> None:
    """Print the ranked table, the Dice of each class, what failed, and notes.

    Args:
        probed: see there.
        console: to print to; ``None`` is the terminal.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    title = f"{probed.data.dataset} {probed.data.configuration}, frozen features"
    console.print(Text(f"{title}\n", style="bold"))
    for table in tables_of(probed):
        console.print(Text(table.title, style="bold"))
        for part in fitting_parts(table):
            console.print(part)
        console.print()
    for row in probed.rows:
        if row.failed:
            console.print(Text(f"failed: {_what(row)}: {row.failed}", style="red"))
    several = len({(row.patch, row.taps) for row in probed.rows if row.scores}) > 1
    for note in (*probed.notes, *([_ORDER] if several else [])):
        console.print(Text(f"note: {note}", style="yellow"))


def tables_of(probed: Probed) -> list[Table]:
    """Make the tables: a row of each that did not fail, the best first.

    Args:
        probed: see there.
    """
    rows = [row for row in probed.rows if row.scores]
    if not rows:
        return []
    several = len({row.input_norm for row in rows}) > 1
    header = ["", "backbone", "patch", "taps", *(["norm"] if several else [])]
    header += ["Dice", "patches", "k-NN", "D", "s/tile"]
    cells = [
        [
            str(number),
            shorten(row.name, _LONGEST_NAME),
            str(row.patch),
            row.taps,
            *([row.input_norm] if several else []),
            *_dice(row.scores),
            str(row.embed_dim),
            f"{row.seconds:.2f}",
        ]
        for number, row in enumerate(rows, start=1)
        if row.scores
    ]
    tables = [Table("Linear probe and nearest neighbours, mean of folds ± spread", header, cells)]
    names = [*probed.data.positions]
    classes = _of_classes(rows, names, lambda scores: scores.pixels.classes)
    tables.append(Table("Dice of each class, linear probe", ["", "backbone", *names], classes))
    return tables


def _dice(scores: Scores | None) -> list[str]:
    if scores is None:
        return []
    return [scores.pixels.mean.text(), scores.patches.mean.text(), scores.neighbours.mean.text()]


def _of_classes(
    rows: Sequence[Row], names: Sequence[str], classes: Callable[[Scores], dict[str, float]]
) -> list[list[str]]:
    cells = []
    for number, row in enumerate(rows, start=1):
        found = classes(row.scores) if row.scores else {}
        dice = [found[name] for name in names]
        told = ["-" if math.isnan(value) else f"{value:.3f}" for value in dice]
        cells.append([str(number), f"{shorten(row.name, 18)} p{row.patch} {row.taps}", *told])
    return cells


def _what(row: Row) -> str:
    parts = [f"patch {row.patch}" if row.patch else "", row.taps, row.input_norm]
    said = ", ".join(filter(None, parts))
    return f"{row.name} ({said})" if said else row.name
