"""A comparison as tables of text."""

import math
from dataclasses import dataclass

from nnunet_vit_trainer.results.spread import Spread, mean_of, spread_of

from .collect import Comparison
from .result import Result


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        header: of each column.
        rows: the cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]


def tables_of(found: Comparison) -> list[Table]:
    """Make the tables: what results reached, what they cost, and whether they differ.

    Args:
        found: see `collect`.
    """
    names = list(dict.fromkeys(n for result in found.results for n in result.class_dice()))
    numbered = [(str(i), result) for i, result in enumerate(found.results, 1)]
    dice = [
        [i, _folds(of), of.mean_dice().text(), *(_class(of, name) for name in names)]
        for i, of in numbered
    ]
    tables = [Table("Dice, mean of folds ± their spread", ["", "folds", "mean", *names], dice)]
    if found.tolerance is not None:
        at = f"surface Dice at {found.tolerance:g} {found.unit}"
        rows = [[i, _folds(of), *_surfaces(of)] for i, of in numbered]
        header = ["", "folds", at, f"HD95, {found.unit}"]
        tables.append(Table("Surfaces, mean of folds ± their spread", header, rows))
    header = ["", "trained", "tile", "GFLOP a tile", "h a fold", "peak GiB", "MB"]
    tables.append(Table("Costs", header, [[i, *_costs(of)] for i, of in numbered]))
    if found.pairs:
        tables.append(_tests(found))
    return tables


def notes_of(found: Comparison) -> list[str]:
    """List what is missing or left out, with the number of the result.

    Args:
        found: see `collect`.
    """
    notes = [f"{i}: {n}" for i, result in enumerate(found.results, 1) for n in result.notes]
    numbers = {result.name: i for i, result in enumerate(found.results, 1)}
    if len({tuple(result.dice) for result in found.results if result.dice}) > 1:
        notes.append("not all have the same folds: only the test is over the same cases")
    for pair in found.pairs:
        if pair.other_folds:
            other = ", ".join(pair.other_folds)
            notes.append(f"{numbers[pair.name]}: fold {other} has other cases: not tested")
    return notes + found.unread


def _folds(result: Result) -> str:
    return " ".join(result.dice) or "-"


def _class(result: Result, name: str) -> str:
    return result.class_dice().get(name, Spread(math.nan, math.nan)).text()


def _surfaces(result: Result) -> list[str]:
    surfaces = result.surfaces.values()
    return [
        spread_of(of.dice for of in surfaces).text(),
        spread_of(of.hd95 for of in surfaces).text(1),
    ]


def _costs(result: Result) -> list[str]:
    costs = result.costs
    counted = ["-"] * 3
    if costs is not None:
        tile = "x".join(map(str, costs.tile))
        counted = [f"{costs.trained / 1e6:.2f} M", tile, f"{costs.flop / 1e9:.3g}"]
    measured = (result.hours, result.gibibytes, result.megabytes)
    means = [mean_of(of.values()) for of in measured]
    return counted + [_number(mean, d) for mean, d in zip(means, (2, 1, 0), strict=True)]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _tests(found: Comparison) -> Table:
    numbers = {result.name: str(i) for i, result in enumerate(found.results, 1)}
    against = numbers[found.against.name] if found.against else ""
    rows = [
        [
            numbers[pair.name],
            " ".join(pair.folds) or "-",
            str(pair.cases),
            str(pair.left_out),
            "-" if math.isnan(pair.difference) else f"{pair.difference:+.3f}",
            _p(pair.p),
            _p(pair.holm),
        ]
        for pair in found.pairs
    ]
    header = ["", "folds", "cases", "left out", "difference", "p", "p (Holm)"]
    return Table(f"Dice of each case against {against}, Wilcoxon's signed-rank test", header, rows)


def _p(p: float) -> str:
    return "-" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
