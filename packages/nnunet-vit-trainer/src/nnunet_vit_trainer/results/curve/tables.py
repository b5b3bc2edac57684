"""Learning curves as tables of text, and as rows of CSV."""

from collections.abc import Sequence
from typing import Any

from nnunet_vit_trainer.results.comparison.result import Result
from nnunet_vit_trainer.results.comparison.tables import Table
from nnunet_vit_trainer.results.spread import Spread, spread_of

from .collect import Curve, Curves


def curve_tables_of(found: Curves) -> list[Table]:
    """Make two tables per curve: the Dice, and by how much it differs from one result's.

    Args:
        found: see `collect_curves`.
    """
    tables = []
    for curve in found.curves:
        counts = curve.counts()
        header = [
            "",
            "folds",
            *(f"{n} case{'s'[: n != 1]}, {curve.share(n):.3g} %" for n in counts),
        ]
        validation = f"fold {curve.whole}'s {curve.validated} validation cases"
        numbered = [(str(i), result) for i, result in enumerate(found.results, 1)]
        rows = [[i, _folds(curve, of), *_dice(curve, of)] for i, of in numbered]
        title = f"Dice on {validation}, mean of folds ± their spread (number)"
        tables.append(Table(title, header, rows))
        rows = [
            [i, _folds(curve, of, found.against), *_differences(curve, of, found.against)]
            for i, of in numbered
            if of is not found.against
        ]
        number = found.results.index(found.against) + 1
        if rows:
            tables.append(Table(f"Difference to {number} over the folds of both", header, rows))
    return tables


def curve_rows_of(found: Curves) -> list[dict[str, Any]]:
    """Make a row per result and fold, with every figure in full.

    Args:
        found: see `collect_curves`.
    """
    rows = []
    for curve in found.curves:
        for result in found.results:
            trainer, plans, configuration = result.name.split("__")
            for count in curve.counts():
                for fold, dice in curve.dice_at(result, count).items():
                    rows.append(
                        {
                            "dataset": found.dataset,
                            "trainer": trainer,
                            "plans": plans,
                            "configuration": configuration,
                            "whole fold": curve.whole,
                            "fold": fold,
                            "training cases": count,
                            "percent": curve.share(count),
                            "validation cases": curve.validated,
                            "dice": dice,
                        }
                    )
    return rows


def _folds(curve: Curve, *results: Result) -> str:
    """Name the folds that all of the results have, runs of them by first and last."""
    numbers = sorted(int(f) for f in curve.trained if all(f in of.dice for of in results))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(_run(run) for run in runs) or "-"


def _run(numbers: Sequence[int]) -> str:
    if len(numbers) < 3:
        return " ".join(map(str, numbers))
    return f"{numbers[0]}-{numbers[-1]}"


def _dice(curve: Curve, result: Result) -> list[str]:
    dices = [curve.dice_at(result, count).values() for count in curve.counts()]
    return [_text(spread_of(of), len(of)) for of in dices]


def _differences(curve: Curve, result: Result, against: Result) -> list[str]:
    return [
        _text(*curve.difference_at(result, against, count), sign="+") for count in curve.counts()
    ]


def _text(of: Spread, count: int, sign: str = "") -> str:
    return f"{of.text(sign=sign)} ({count})" if count else "-"
