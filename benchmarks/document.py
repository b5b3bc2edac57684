"""What a script writes into a document that people write: between a pair of marks, in one form."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev


def put(document: Path, mark: str, script: str, lines: Sequence[str]) -> None:
    """Put lines between a pair of marks, and print them.

    Args:
        document: has the marks ``<!-- MARK: written by SCRIPT -->`` and ``<!-- end MARK -->``.
        mark: their name.
        script: its path in the repository.
        lines: without newlines.
    """
    begin, end = f"<!-- {mark}: written by {script} -->", f"<!-- end {mark} -->"
    before, rest = document.read_text().split(begin)
    after = rest.split(end)[1]
    document.write_text("\n".join([before + begin, "", *lines, "", end + after]))
    print("\n".join(lines))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Write mean ± standard deviation (number); nothing of no values."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation} ({len(values)})"
