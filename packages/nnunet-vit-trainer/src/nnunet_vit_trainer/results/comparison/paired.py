"""A paired test over cases: does one result's Dice differ from another's on the same images?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.stats import wilcoxon

from nnunet_vit_trainer.results.spread import mean_of

from .result import Result


@dataclass(frozen=True)
class Paired:
    """A result against another one, over the cases of the folds that both validated alike.

    Attributes:
        name: of the result that was compared.
        folds: whose validation cases are the same in both.
        other_folds: that both validated, on other cases: left out.
        cases: in these folds with a Dice in both.
        left_out: values of a case and class that were left out, since one of the two has none
            (neither its mask nor its prediction holds the class).
        difference: mean over cases, positive where the result is the better one.
        p: of Wilcoxon's signed-rank test, two-sided; NaN without cases.
        holm: p, corrected for the number of results that are compared.
    """

    name: str
    folds: list[str]
    other_folds: list[str]
    cases: int
    left_out: int
    difference: float
    p: float
    holm: float = math.nan


def compare_pairs(results: Sequence[Result], against: Result) -> list[Paired]:
    """Compare every other result with one, p corrected by Holm's method.

    A case counts by the mean Dice over its classes.

    Args:
        results: of one data set; the one that is compared against is passed over, and so are those
            without a validation.
        against: with one.
    """
    others = [of for of in results if of is not against and of.dice]
    pairs = [_compare(of, against) for of in others]
    corrected = holm([pair.p for pair in pairs])
    return [replace(pair, holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values by Holm's method; NaN is no test, and stays.

    Args:
        ps: of several tests, in any order.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = [math.nan] * len(ps), 0.0
    for done, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - done)))
        corrected[i] = largest
    return corrected


def _compare(result: Result, against: Result) -> Paired:
    both = [fold for fold in result.dice if fold in against.dice]
    same = [f for f in both if result.dice[f].keys() == against.dice[f].keys()]
    differences, left_out = [], 0
    for fold in same:
        for case, dice in result.dice[fold].items():
            other = against.dice[fold][case]
            values = [dice[name] - other.get(name, math.nan) for name in dice]
            left_out += sum(map(math.isnan, values))
            differences.append(mean_of(values))
    known = [value for value in differences if not math.isnan(value)]
    return Paired(
        result.name,
        same,
        [fold for fold in both if fold not in same],
        len(known),
        left_out,
        mean_of(known),
        _p_of(known),
    )


def _p_of(differences: list[float]) -> float:
    if not differences:
        return math.nan
    # The test leaves zeros out; scipy, where there are any, takes a normal approximation too.
    other = [difference for difference in differences if difference]
    return float(wilcoxon(other).pvalue) if other else 1.0
