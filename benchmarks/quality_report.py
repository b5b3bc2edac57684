"""Tables and pictures of what quality.py and head_steps.py recorded: docs/results.md.

    python benchmarks/quality_report.py

Means over the seeds that are recorded, with their standard deviation and number. Curves are the
pseudo Dice of each epoch, on random crops of the validation's images; they tell when a run has
learned, the validation's own Dice what it has.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from document import put, spread
from heads import HEADS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from quality import RECORD, ROOT, RUNS, TRAIN, recorded
from torch.utils.flop_counter import FlopCounterMode

from vit_backbone import find_head

OF_BATCHES = RECORD.with_name("quality_batch_dice.json")
"""Recorded at a8ca2fe~1: ours with nnU-Net's plan for the loss, one Dice of the whole batch."""
DOCUMENT = ROOT / "docs" / "results.md"
SCRIPT = "benchmarks/quality_report.py"
STEPS = RECORD.with_name("steps.json")
NAMES = {101: "101 HENuclei", 102: "102 Colin27"}
EVERY = TRAIN["num_iterations_per_epoch"]
SHOWN = (50, 100, 200, 400)
COLORS = mpl.colormaps["tab10"]
SCORES = (("dice", 3), ("pooled_dice", 3), ("surface_dice", 3), ("hd95", 1))
"""What is recorded of a run, and the digits that say something."""


def main() -> None:
    """Write both tables between their marks, and the pictures beside the document."""
    runs = [run for run in (*RUNS, "unetr_lora") if any(found(run, d) for d in NAMES)]
    put(DOCUMENT, "quality", SCRIPT, quality_table(runs))
    put(DOCUMENT, "curves", SCRIPT, curve_table(runs))
    put(DOCUMENT, "batch_dice", SCRIPT, batch_dice_table(runs))
    draw_curves(runs, DOCUMENT.with_name("learning_curves.png"))
    draw_costs(runs, DOCUMENT.with_name("dice_over_cost.png"))


def found(run: str, dataset: int) -> list[dict[str, Any]]:
    """Return the records of a run's seeds."""
    return [
        s for key, s in recorded(RECORD).items() if key.rpartition("_")[0] == f"{run}_{dataset}"
    ]


def cost_of(run: str) -> tuple[float, float]:
    """Count a head's GFLOP and million parameters on a ViT-S/16 at 256 px, without the ViT's."""
    import torch

    name, options = HEADS[run.rsplit("_", 1)[0]]
    model = find_head(name)("dinov3", "small", num_classes=4, pretrained=False, **options)
    model = model.to("meta").eval()
    taps = [torch.empty(1, 384, 16, 16, device="meta")] * 4
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(taps, torch.empty(1, 3, 256, 256, device="meta"))
    parameters = sum(p.numel() for p in model.head.parameters())
    return counter.get_total_flops() / 1e9, parameters / 1e6


def quality_table(runs: list[str]) -> list[str]:
    """Return a row per run and data set: what the validation found, and what the head costs."""
    steps = json.loads(STEPS.read_text())["step"] if STEPS.is_file() else {}
    lines = [
        "| run | data | Dice | pooled Dice | surface Dice, 1 px | HD95, px | GFLOP / M | step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        gflop, parameters = ("", "") if run == "stock" else map("{:.2f}".format, cost_of(run))
        cost = f"{gflop} / {parameters}" if gflop else ""
        step = steps.get("stock" if run == "stock" else run.rsplit("_", 1)[0], "")
        for dataset, name in NAMES.items():
            records = found(run, dataset)
            if not records:
                continue
            cells = [spread([r[k] for r in records], digits) for k, digits in SCORES]
            lines.append(f"| {run} | {name} | {' | '.join(cells)} | {cost} | {step} |")
    return lines


def batch_dice_table(runs: list[str]) -> list[str]:
    """Return a row per run and data set: with one Dice of each batch in the loss, and as it is."""
    both = of_batches, as_it_is = json.loads(OF_BATCHES.read_text()), recorded(RECORD)
    lines = [
        "| run | data | seeds | Dice | pooled Dice | surface Dice, 1 px | HD95, px |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for dataset, name in NAMES.items():
            keys = [f"{run}_{dataset}_{seed}" for seed in range(3)]
            keys = [key for key in keys if key in of_batches and key in as_it_is]
            if not keys:
                continue
            cells = [
                " -> ".join(f"{mean(of[k][score] for k in keys):.{digits}f}" for of in both)
                for score, digits in SCORES
            ]
            lines.append(f"| {run} | {name} | {len(keys)} | {' | '.join(cells)} |")
    return lines


def curve(run: str, dataset: int) -> list[float]:
    """Return the mean pseudo Dice of the seeds, per epoch."""
    return [mean(epoch) for epoch in zip(*(r["curve"] for r in found(run, dataset)), strict=True)]


def curve_table(runs: list[str]) -> list[str]:
    """Return a row per run and data set: the curve at some iterations, and when it passes stock."""
    lines = [
        f"| run | data | {' | '.join(f'{i} iterations' for i in SHOWN)} | as stock's 400 after |",
        f"|---|---|{'---|' * len(SHOWN)}---|",
    ]
    for run in runs:
        for dataset, name in NAMES.items():
            ours, stock = curve(run, dataset), curve("stock", dataset)
            if not ours:
                continue
            cells = [f"{ours[i // EVERY - 1]:.3f}" for i in SHOWN]
            passed = [i for i, value in enumerate(ours) if stock and value >= stock[-1]]
            after = f"{(passed[0] + 1) * EVERY}" if passed else "not"
            lines.append(f"| {run} | {name} | {' | '.join(cells)} | {after if stock else ''} |")
    return lines


def draw_curves(runs: list[str], file: Path) -> None:
    """Draw the pseudo Dice over iterations: means, and the range of the seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True, layout="constrained")
    for axis, (dataset, name) in zip(axes, NAMES.items(), strict=True):
        for i, run in enumerate(runs):
            curves = [r["curve"] for r in found(run, dataset)]
            if not curves:
                continue
            iterations = [EVERY * (epoch + 1) for epoch in range(len(curves[0]))]
            style = {"color": "black", "ls": "--"} if run == "stock" else {"color": COLORS(i)}
            axis.plot(iterations, curve(run, dataset), label=run.removesuffix("_lora"), **style)
            low, high = zip(*((min(v), max(v)) for v in zip(*curves, strict=True)), strict=True)
            axis.fill_between(iterations, low, high, alpha=0.12, color=style["color"], lw=0)
        axis.set(title=name, xlabel="iterations", ylabel="pseudo Dice", ylim=0)
        axis.grid(alpha=0.3)
    put_legend(figure, axes[1])
    figure.savefig(file, dpi=110)


def draw_costs(runs: list[str], file: Path) -> None:
    """Draw the validation's Dice over the head's GFLOP; the line is stock's Dice."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axis, (dataset, name) in zip(axes, NAMES.items(), strict=True):
        for i, run in enumerate(runs):
            dices = [r["dice"] for r in found(run, dataset)]
            if not dices:
                continue
            if run == "stock":
                axis.axhline(mean(dices), color="black", ls="--", lw=1, label="stock")
                continue
            gflop, _ = cost_of(run)
            error = stdev(dices) if len(dices) > 1 else 0
            style = {"color": COLORS(i), "fmt": "o", "capsize": 3}
            label = run.removesuffix("_lora")
            axis.errorbar(max(gflop, 0.01), mean(dices), error, label=label, **style)
        axis.set(title=name, xlabel="GFLOP of the head, 256 px, ViT-S", ylabel="Dice", xscale="log")
        axis.set_ylim(min(axis.get_ylim()[0], 0.3), max(axis.get_ylim()[1], 0.8))
        axis.grid(alpha=0.3)
    put_legend(figure, axes[1])
    figure.savefig(file, dpi=110)


def put_legend(figure: Figure, axis: Axes) -> None:
    """Put an axis' legend below the figure, where it covers nothing."""
    lines, labels = axis.get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=7.5, loc="outside lower center", ncols=5)


if __name__ == "__main__":
    main()
