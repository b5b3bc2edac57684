"""A comparison as a figure: the Dice of every case, and the Dice over the forward work."""

from pathlib import Path

from matplotlib.figure import Figure

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.results.spread import known_of, mean_of
from vit_backbone import UserError, shorten

from .collect import Comparison
from .result import Result

_LONGEST = 45


def write_plot(found: Comparison, file: Path) -> None:
    """Draw a box per result of its cases' Dice, and beside it the results over their GFLOP.

    Args:
        found: see `collect`.
        file: to write; its ending is one that matplotlib writes, such as ``.png``.

    Raises:
        UserError: no result is validated.
        OSError: what the disk says.
    """
    numbered = [(i, of) for i, of in enumerate(found.results, 1) if of.dice]
    if not numbered:
        raise UserError("there is nothing to plot: no result is validated")
    figure = Figure(figsize=(11, 1.6 + 0.4 * len(numbered)), layout="constrained")
    boxes, over = figure.subplots(1, 2, width_ratios=(2, 1))
    boxes.boxplot(
        [_cases(result) for _, result in numbered],
        orientation="horizontal",
        showmeans=True,
        tick_labels=[shorten(f"{i}  {of.name.split('__')[1]}", _LONGEST) for i, of in numbered],
    )
    boxes.invert_yaxis()
    boxes.set(xlabel="Dice of a case (mean over classes)", title=found.dataset)
    for i, result in numbered:
        if result.costs is None:
            continue
        place = (result.costs.flop / 1e9, result.mean_dice().mean)
        over.plot(*place, "o", color="tab:blue")
        over.annotate(str(i), place, xytext=(5, 5), textcoords="offset points")
    over.set(xlabel="GFLOP of a tile", ylabel="Dice (mean of folds)")
    over.margins(0.2)
    with written_whole(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:].lower(), dpi=150)


def _cases(result: Result) -> list[float]:
    values = [mean_of(dice.values()) for cases in result.dice.values() for dice in cases.values()]
    return known_of(values)
