"""A comparison as Markdown, and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from nnunet_vit_trainer.results.spread import Spread, known_of, mean_of, spread_of

from .collect import Comparison
from .result import Result
from .tables import Table, notes_of, tables_of


def markdown_of(found: Comparison) -> str:
    """Write the tables as Markdown.

    Args:
        found: see `collect`.
    """
    names = [result.name for result in found.results]
    return markdown_page(found.dataset, names, tables_of(found), notes_of(found))


def markdown_page(
    title: str, names: Iterable[str], tables: Iterable[Table], notes: Sequence[str]
) -> str:
    """Write tables below a numbered list of what their rows are.

    Args:
        title: the heading.
        names: of the rows, in the order of their numbers.
        tables: whose rows begin with these numbers.
        notes: a list below.
    """
    lines = [f"# {title}", "", *(f"{i}. `{name}`" for i, name in enumerate(names, 1))]
    for table in tables:
        lines += ["", f"## {table.title}", "", _markdown_row(table.header)]
        lines += ["|" + "---|" * len(table.header), *map(_markdown_row, table.rows)]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def csv_of(found: Comparison) -> str:
    """Write a line per result, with every figure in full.

    Args:
        found: see `collect`.
    """
    return csv_table([_record(found, result) for result in found.results])


def csv_table(rows: Sequence[dict[str, Any]]) -> str:
    """Write rows below all their columns; what a row lacks is empty.

    Args:
        rows: column -> cell.
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _record(found: Comparison, result: Result) -> dict[str, Any]:
    trainer, plans, configuration = result.name.split("__")
    record: dict[str, Any] = {
        "dataset": found.dataset,
        "trainer": trainer,
        "plans": plans,
        "configuration": configuration,
        "folds": " ".join(result.dice),
        **_spread("dice", result.mean_dice()),
    }
    for name, dice in result.class_dice().items():
        record |= _spread(f"dice {name}", dice)
    if found.tolerance is not None:
        surfaces = result.surfaces.values()
        at = f"at {found.tolerance:g} {found.unit}"
        record |= _spread(f"surface dice {at}", spread_of(of.dice for of in surfaces))
        record |= _spread(f"hd95 {found.unit}", spread_of(of.hd95 for of in surfaces))
    if result.costs is not None:
        record |= {
            "trained parameters": result.costs.trained,
            "tile": "x".join(map(str, result.costs.tile)),
            "gflop": result.costs.flop / 1e9,
        }
    for name in ("hours", "gibibytes", "megabytes"):
        record[f"{name} a fold"] = _or_empty(mean_of(getattr(result, name).values()))
    for pair in found.pairs:
        if pair.name == result.name:
            tested = {n: _or_empty(getattr(pair, n)) for n in ("difference", "p", "holm")}
            counts = {"cases": pair.cases, "left out": pair.left_out}
            against = found.against.name if found.against else ""
            record |= {"against": against, "tested folds": " ".join(pair.folds), **counts, **tested}
    return record | {"notes": "; ".join(result.notes)}


def _spread(name: str, of: Spread) -> dict[str, Any]:
    return {f"{name} mean": _or_empty(of.mean), f"{name} spread": _or_empty(of.spread)}


def _or_empty(value: float) -> Any:
    return value if known_of([value]) else ""
