"""Make a table of what adapt.py recorded.

    python benchmarks/adapt_report.py [--record FILE]

Of each run and number of steps: Dice of the linear probe on the validation slices, the gain of
each seed over the backbone that was not adapted, and the gain's spread over draws of the labelled
slices. The fit's strength is, for each run and number of labelled slices, the one that is best on
the training slices left over; the last gain is that on those.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RECORD = Path(__file__).resolve().parent / "results" / "adapt.json"
NONE = "none"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    record = json.loads(parser.parse_args().record.read_text())
    base = record.pop(NONE)["0"]
    shots = sorted(key.removeprefix("val_") for key in base if key.startswith("val_"))
    header = [f"{n} labelled: Dice | gain, by seed | draws | training" for n in shots]
    print(f"| run | steps | {' | '.join(header)} |")
    print(f"|---|---|{'---|---|---|---|' * len(shots)}")
    cells = [f"{mean(best(base, n, 'val')):.3f} | | | " for n in shots]
    print(f"| {NONE} | 0 | {' | '.join(cells)} |")
    for name, steps in sorted({(key.rpartition("_")[0], n) for key in record for n in record[key]}):
        runs = [of[steps] for key, of in record.items() if key.rpartition("_")[0] == name]
        cells = [cells_of(runs, base, n) for n in shots]
        print(f"| {name} | {steps} | {' | '.join(cells)} |")


def cells_of(runs: list[dict[str, Any]], base: dict[str, Any], shots: str) -> str:
    """Return the cells of a row for a number of labelled slices."""
    gains = {part: [gains_of(run, base, shots, part) for run in runs] for part in ("val", "train")}
    draws = [gain for of in gains["val"] for gain in of]
    dice = mean(mean(best(run, shots, "val")) for run in runs)
    each = ", ".join(f"{mean(of):+.3f}" for of in gains["val"])
    return f"{dice:.3f} | {each} | ±{stdev(draws):.3f} | {mean(map(mean, gains['train'])):+.3f}"


def gains_of(run: dict[str, Any], base: dict[str, Any], shots: str, part: str) -> list[float]:
    """Return the gain in Dice of each draw of labelled slices."""
    pairs = zip(best(run, shots, part), best(base, shots, part), strict=True)
    return [ours - theirs for ours, theirs in pairs]


def best(run: dict[str, Any], shots: str, part: str) -> list[float]:
    """Return each draw's Dice under the strength that is best on the training slices."""
    strength = max(run[f"train_{shots}"].items(), key=lambda item: mean(item[1]))[0]
    return run[f"{part}_{shots}"][strength]


if __name__ == "__main__":
    main()
