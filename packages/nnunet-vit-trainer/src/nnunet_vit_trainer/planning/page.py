"""The reasons of a plan on the terminal, at most 80 columns wide."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .reasons import Reasons

_WIDTH = 80


def print_reasons(title: str, reasons: Reasons, console: Console | None = None) -> None:
    """Print why a plan is as it is.

    Args:
        title: what was planned.
        reasons: see there.
        console: to print to; ``None`` is the terminal.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    console.print(Text(title, style="bold"), "\n")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in reasons:
        lines.add_row(Text(name), Text(text))
    console.print(lines)
