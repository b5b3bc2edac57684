"""Learning curves as a figure: the Dice over the number of training cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.results.spread import known_of, spread_of
from vit_backbone import shorten

from .collect import Curves

# Okabe and Ito's, which differ to everyone; markers and dashes differ without any colour.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX"
_DASHES = ("--", "-", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (5, 5)))
_LONGEST = 60


def write_curve_plot(found: Curves, file: Path) -> None:
    """Draw a panel per curve, with a line per result.

    Args:
        found: see `collect_curves`.
        file: to write; its ending is one that matplotlib writes, such as ``.png``.

    Raises:
        OSError: what the disk says.
    """
    count = len(found.curves)
    figure = Figure(figsize=(max(6.5, 5 * count), 5), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    # The one that others are compared with is the black, dashed line.
    results = sorted(found.results, key=lambda result: result is not found.against)
    for axis, curve in zip(axes, found.curves, strict=True):
        lines = {
            shorten(f"{found.results.index(of) + 1}  {_short(of.name)}", _LONGEST): {
                n: list(curve.dice_at(of, n).values()) for n in curve.counts()
            }
            for of in results
        }
        title = f"fold {curve.whole}, {curve.validated} validation cases"
        draw_lines(axis, lines, f"{found.dataset}: {title}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    with written_whole(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:].lower(), dpi=150)


def draw_lines(axis: Axes, lines: Mapping[str, Mapping[int, Sequence[float]]], title: str) -> None:
    """Draw a line of means per name over the number of cases, with bars of standard deviation.

    Args:
        axis: to draw into; a logarithmic one comes out of it.
        lines: name -> number of cases -> values, such as of several draws; a number without values
            is passed over. The first one is black and dashed.
        title: of the panel.
    """
    for i, (name, values) in enumerate(lines.items()):
        known = {n: of for n, found in values.items() if (of := known_of(found))}
        spreads = [spread_of(of) for of in known.values()]
        axis.errorbar(
            # Beside each other, so that bars of the same cases do not cover each other.
            [n * (1 + 0.02 * (i - (len(lines) - 1) / 2)) for n in known],
            [of.mean for of in spreads],
            [of.spread if of.spread == of.spread else 0 for of in spreads],
            label=name,
            color=_COLORS[i % len(_COLORS)],
            marker=_MARKERS[(i + i // len(_COLORS)) % len(_MARKERS)],
            linestyle=_DASHES[i % len(_DASHES)],
            capsize=3,
        )
    counts = sorted({n for values in lines.values() for n in values})
    axis.set(title=title, xlabel="training cases", ylabel="Dice", xscale="log")
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def _short(name: str) -> str:
    """Say a result's trainer where it is stock's, and its plans where they are ours."""
    trainer, plans, configuration = name.split("__")
    own = plans.removeprefix("nnUNetPlans").removeprefix("_")
    return f"{own or trainer} ({configuration})"
