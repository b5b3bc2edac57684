"""What the parsers of the commands share: the form of ``--help``, one line for a mistake, TAB."""

import argparse
import os
import re
import shutil
from collections.abc import Iterable
from typing import Any, NoReturn

_WIDEST = 79
_EXAMPLE = "Example: "


class CommandParser(argparse.ArgumentParser):
    """A parser whose help begins with an example and ends with where to read on.

    Args:
        name: of the command.
        example: how it is called; several lines are put below each other.
        about: what it does.
        read_on: files of the documentation.
    """

    def __init__(self, name: str, *, example: str, about: str, read_on: str) -> None:
        super().__init__(
            prog=name,
            usage=example.replace("%", "%%").replace("\n", f"\n{' ' * len(_EXAMPLE)}"),
            description=about,
            epilog=f"Read on: {read_on}",
            formatter_class=_Formatter,
        )

    def error(self, message: str) -> NoReturn:
        """Say a mistake in one line and exit with 2.

        Args:
            message: argparse's.
        """
        if re.match("unrecognized arguments: [^-]", message):
            message += "; is it a name with spaces? Put it in quotes"
        self.exit(2, f"{self.prog}: {message} (--help begins with an example)\n")

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Take a line of a file that an argument names by ``@`` as one word; an empty one is none.

        Args:
            arg_line: the line.
        """
        return [arg_line] if arg_line.strip() else []

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse the command line, or complete it where a shell asks for that (argcomplete).

        Args:
            args: as argparse takes them, like the next.
            namespace: see there.
        """
        if "_ARGCOMPLETE" in os.environ:
            try:
                from argcomplete import autocomplete
            except ImportError:
                raise SystemExit(1) from None  # else a TAB would run the command
            autocomplete(self)
        return super().parse_args(args, namespace)


class _Formatter(argparse.HelpFormatter):
    """At most 79 columns, the example instead of the usage."""

    def __init__(self, prog: str, **options: Any) -> None:
        width = min(_WIDEST, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, **{"max_help_position": 30, "width": width} | options)

    def add_usage(
        self, usage: Any, actions: Any, groups: Any, prefix: str | None = _EXAMPLE
    ) -> None:
        """Add the example.

        Args:
            usage: the example.
            actions: see argparse.
            groups: see argparse.
            prefix: before it.
        """
        super().add_usage(usage, actions, groups, prefix)
