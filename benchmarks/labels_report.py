"""Tables and a picture of what labels.py recorded: docs/labels.md.

    python benchmarks/labels_report.py [--record FILE] [--document FILE] [--iterations N]

Means over the seeds that are recorded, with their standard deviation and number. Runs of another
number of iterations have rows of their own; the picture is of one number, the largest that is
recorded unless it is asked for another one.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from document import put, spread
from labels import RECORD, RUNS
from matplotlib.figure import Figure
from quality import ROOT, recorded
from quality_report import NAMES

from nnunet_vit_trainer.results.curve.plot import draw_lines

DOCUMENT = ROOT / "docs" / "labels.md"
SCRIPT = "benchmarks/labels_report.py"
GOALS = {10.0: 0.10, 25.0: 0.03, 100.0: 0.0}
"""By how much the Dice is to be above stock's, at percent of the training cases."""
NOT_YET = ["Not measured yet."]
Record = list[dict[str, Any]]


def main() -> None:
    """Write both tables between their marks, and the picture beside the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--iterations", type=int, help="that the picture shows")
    arguments = parser.parse_args()
    record = [*recorded(arguments.record).values()]
    lengths = sorted({entry["iterations"] for entry in record})
    put(arguments.document, "labels", SCRIPT, dice_table(record, lengths) if record else NOT_YET)
    differences = difference_table(record, lengths) if record else NOT_YET
    shown = arguments.iterations or max(lengths, default=0)
    drawn = [dataset for dataset in NAMES if has_curve(of(record, iterations=shown), dataset)]
    if drawn:
        picture = arguments.document.with_name("label_curves.png")
        draw(of(record, iterations=shown), drawn, shown, picture)
        differences += ["", f"![Dice over the training cases, {shown} iterations]({picture.name})"]
    put(arguments.document, "differences", SCRIPT, differences)


def dice_table(record: Record, lengths: list[int]) -> list[str]:
    """Return a row per length, data set and run: the Dice at each share."""
    lines = head_of(record)
    for length in lengths:
        for dataset, name in NAMES.items():
            found = of(record, iterations=length, dataset=dataset)
            cases = [{e["cases"] for e in of(found, share=share)} for share in shares_in(record)]
            cells = [", ".join(map(str, sorted(counts))) for counts in cases]
            lines += [row(length, name, "training cases", cells)] if found else []
            for run in runs_in(found):
                values = [dices(of(found, run=run, share=share)) for share in shares_in(record)]
                lines.append(row(length, name, run, [spread([*v.values()]) for v in values]))
    return lines


def difference_table(record: Record, lengths: list[int]) -> list[str]:
    """Return a row per length, data set and run of ours: Dice less stock's of the same seed."""
    lines = head_of(record)
    goals = [f"{GOALS[s]:+.2f}" if s in GOALS else "" for s in shares_in(record)]
    lines.append(row("", "", "goal: at least", goals))
    for length in lengths:
        for dataset, name in NAMES.items():
            found = of(record, iterations=length, dataset=dataset)
            for run in [run for run in runs_in(found) if run != "stock"]:
                cells = [difference(found, run, share) for share in shares_in(record)]
                lines.append(row(length, name, run, cells))
    return lines


def difference(found: Record, run: str, share: float) -> str:
    """Write the mean difference to stock over the seeds of both, and whether it is the goal's."""
    ours, stock = (dices(of(found, run=name, share=share)) for name in (run, "stock"))
    values = [ours[seed] - stock[seed] for seed in ours if seed in stock]
    if not values:
        return ""
    goal, reached = GOALS.get(share), ""
    if goal is not None:
        reached = ", reached" if mean(values) >= goal else ", missed"
    return f"{'+' if mean(values) >= 0 else ''}{spread(values)}{reached}"


def has_curve(record: Record, dataset: int) -> bool:
    """Say whether a data set has runs of more than one share, between which a line is drawn."""
    return len(shares_in(of(record, dataset=dataset))) > 1


def draw(record: Record, datasets: list[int], length: int, file: Path) -> None:
    """Draw a panel per data set: the Dice over the number of training cases, a line per run."""
    figure = Figure(figsize=(5 * len(datasets), 4.8), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        found = of(record, dataset=dataset)
        lines = {}
        for run in runs_in(record):
            counts = sorted({entry["cases"] for entry in of(found, run=run)})
            lines[run] = {n: [*dices(of(found, run=run, cases=n)).values()] for n in counts}
        draw_lines(axis, lines, f"{NAMES[dataset]}, {length} iterations")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(file, dpi=100)


def of(record: Record, **facts: Any) -> Record:
    """Return the entries of which these facts are so."""
    return [entry for entry in record if all(entry[k] == value for k, value in facts.items())]


def dices(record: Record) -> dict[int, float]:
    """Return the Dice of each seed."""
    return {entry["seed"]: entry["dice"] for entry in record}


def runs_in(record: Record) -> list[str]:
    """Return the runs of a record, stock first."""
    there = {entry["run"] for entry in record}
    return [run for run in RUNS if run in there] + sorted(there - {*RUNS})


def shares_in(record: Record) -> list[float]:
    """Return the shares of a record, the smallest first."""
    return sorted({entry["share"] for entry in record})


def head_of(record: Record) -> list[str]:
    """Return a table's first two lines."""
    shares = [f"{share:g} %" for share in shares_in(record)]
    return [row("iterations", "data", "run", shares), "|" + "---|" * (3 + len(shares))]


def row(length: int | str, data: str, run: str, cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {length} | {data} | {run} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
