"""The page that the doctor prints; it fits 80 columns."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .examination import Examination


def print_page(found: Examination, console: Console | None = None) -> None:
    """Print what was found.

    Args:
        found: see `examine`.
        console: to print to; ``None`` is the terminal, at most 80 columns wide.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, 80)
    console.print(Text(found.title, style="bold"), "\n")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in found.facts:
        facts.add_row(Text(name), Text(value))
    console.print(facts)
    trainable = Table(box=None, padding=(0, 2, 0, 0))
    trainable.add_column("\ntrains", no_wrap=True)
    for title in ("\nparameters", "\nlearning rate", "\nweight decay"):
        trainable.add_column(title, justify="right")
    for row in found.trainable:
        trainable.add_row(*row)
    console.print(*([trainable] if found.trainable else []), "")
    if not found.problems:
        console.print("No problems found.")
    for problem in found.problems:
        style = "red" if problem.fatal else "yellow"
        word = Text("fatal: " if problem.fatal else "note: ", style=style)
        console.print(word + Text(problem.line()))
