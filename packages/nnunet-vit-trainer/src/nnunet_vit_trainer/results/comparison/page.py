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
    count = len(found.results)
    title = f"{found.dataset}: {count} result{'s'[: count != 1]}"
    names = [result.name for result in found.results]
    print_page(title, names, tables_of(found), notes_of(found), console)


def print_page(
    title: str,
    names: Iterable[str],
    tables: Iterable[Table],
    notes: Iterable[str],
    console: Console | None = None,
) -> None:
    """Print tables below a numbered list of what their rows are.

    Args:
        title: the first line.
        names: of the rows, in the order of their numbers.
        tables: whose rows begin with these numbers.
        notes: lines below.
        console: to print to; ``None`` is the terminal.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    console.print(Text(f"{title}\n", style="bold"))
    list_of_names = RichTable.grid(padding=(0, 2))
    list_of_names.add_column(justify="right")
    list_of_names.add_column(overflow="fold")
    for i, name in enumerate(names, 1):
        list_of_names.add_row(str(i), Text(name))
    console.print(list_of_names)
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        for part in fitting_parts(table):
            console.print(part)
    for line in notes:
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
