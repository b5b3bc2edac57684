"""The bar of commands that go through cases."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_cases_of(what: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """Yield what is told how many steps there are, and returns what is called after each.

    Args:
        what: is done, beside the bar; there is none where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (what, BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:

        def on_cases(steps: int) -> Callable[[], None]:
            task = bar.add_task("", total=steps)
            return lambda: bar.advance(task)

        yield on_cases
