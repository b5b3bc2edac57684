"""A comparison on the terminal, at most 80 columns wide."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .collect import Comparison
from .tables import Table, notes_of, tables_of

_WIDTH = 80
_LONGEST_HEADER = 14
_FIXED = 2
"""Columns that every part of a table repeats that is too wide for the page."""


def print_comparison(found: Comparison, console: Console | None = None) -> None:
    """Print the tables, at most 80 columns wide.

    Args:
        found: see `collect`.
        console: to print to; ``None`` is the terminal.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    console.print(
        Text(
            f"{found.dataset}: {len(found.results)} result{'s'[: len(found.results) != 1]}\n",
            style="bold",
        )
    )
    names = RichTable.grid(padding=(0, 2))
    names.add_column(justify="right")
    names.add_column(overflow="fold")
    for i, result in enumerate(found.results, 1):
        names.add_row(str(i), Text(result.name))
    console.print(names)
    for table in tables_of(found):
        console.print()
        console.print(Text(table.title, style="bold"))
        for part in fitting_parts(table):
            console.print(part)
    for line in notes_of(found):
        console.print(Text(f"note: {line}", style="yellow"))


def fitting_parts(table: Table) -> Iterable[RichTable]:
    """Cut a table that is too wide into several with the same first columns."""
    widths = [
        max(min(len(head), _LONGEST_HEADER), *(len(row[i]) for row in table.rows)) + 2
        for i, head in enumerate(table.header)
    ]
    columns = list(range(_FIXED, len(widths)))
    while columns:
        taken = [columns.pop(0)]
        while columns and sum(widths[i] for i in (*range(_FIXED), *taken, columns[0])) <= _WIDTH:
            taken.append(columns.pop(0))
        part = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for i in (*range(_FIXED), *taken):
            part.add_column(
                Text(table.header[i]),
                justify="right" if i == 0 else "left",
                max_width=widths[i] - 2,
                overflow="fold",
                vertical="bottom",
            )
        for row in table.rows:
            part.add_row(*(Text(row[i]) for i in (*range(_FIXED), *taken)))
        yield part
