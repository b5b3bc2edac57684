"""Tables and picture of what speed.py recorded: docs/speed.md.

    python benchmarks/speed_report.py

Ratios are medians, with quartiles, of those within each round.
"""

import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from document import put

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "speed.json"
DOCUMENT = ROOT / "docs" / "speed.md"
SCRIPT = "benchmarks/speed_report.py"
BASE, PLAIN = "PlainConvUNet", "UNETR, plain assembly"
# Of Okabe and Ito, which the colour-blind tell apart; each kind has a marker of its own, too.
STYLES = {
    "ours": ("#0072B2", "o"),
    "ViT": ("#000000", "v"),
    "plain": ("#D55E00", "s"),
    "other": ("#E69F00", "^"),
    "nnU-Net": ("#009E73", "D"),
}
KINDS = {
    "ours": "ours",
    "ViT": "the bare ViT",
    "plain": "plain assembly",
    "other": "other projects",
    "nnU-Net": "nnU-Net",
}
Measured = dict[str, Any]


def write_document() -> None:
    """Put the goals and a table for each plan between their marks, and draw."""
    known = json.loads(RECORD.read_text())
    put(DOCUMENT, "goals", SCRIPT, goals(known))
    tables = [line for key, measured in known.items() for line in ["", *table(key, measured)]]
    put(DOCUMENT, "tables", SCRIPT, tables[1:])
    draw(known, DOCUMENT.with_name("speed.png"))


def ratios(measured: Measured, of: str, to: str, what: str = "steps") -> list[float]:
    """Return quartile, median, quartile of a network's time over another's in the same round."""
    one, other = (measured["peers"][name][what] for name in (of, to))
    return quantiles([a / b for a, b in zip(one, other, strict=True)])


def share_of_peak(measured: Measured, name: str) -> float:
    """Return the median share of the matrix peak of its round that a step reached."""
    peer = measured["peers"][name]
    rates = zip(peer["steps"], measured["peaks"], strict=True)
    return median(peer["step_flop"] / seconds / (1e9 * peak) for seconds, peak in rates)


def table(key: str, measured: Measured) -> list[str]:
    """Return a row per network, the fastest step first."""
    size = "x".join(map(str, measured["patch"]))
    packages = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    how = ", compiled (but the plain assembly)" if measured["compiled"] else ""
    lines = [
        f"**{key}**: {size} px, {measured['channels']} channels, batch {measured['batch']}; "
        f"{measured['machine']}{how}, matrix peak {median(measured['peaks']):.0f} GFLOP/s; "
        f"{len(measured['peaks'])} rounds; {packages}.",
        "",
        f"| network | step / {BASE}'s | s | inference / {BASE}'s | s | peak, GiB "
        "| parameters / trained, M | GFLOP | share of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    peers = measured["peers"]
    for name in sorted(peers, key=lambda name: ratios(measured, name, BASE)[1]):
        peer = peers[name]
        cells = [name]
        for what in ("steps", "inferences"):
            low, middle, high = ratios(measured, name, BASE, what)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            cells.append(f"{median(peer[what]):#.3g}")
        millions = [f"{peer[of] / 1e6:.1f}" for of in ("parameters", "trainable")]
        cells += [f"{peer['peak_gib']:.2f}", " / ".join(millions), f"{peer['flop'] / 1e9:.0f}"]
        cells.append(f"{share_of_peak(measured, name):.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def goals(known: dict[str, Measured]) -> list[str]:
    """Return a row per goal and table that tells of it."""
    lines = ["| goal | where | measured | met |", "|---|---|---|---|"]
    for key, measured in known.items():
        device, vit, _ = key.split(", ", 2)
        cuda, peers = device == "cuda", measured["peers"]
        if vit == "ViT-S":
            step = ratios(measured, BASE, "recommended")
            faster = f"recommended head faster than {BASE}, training step"
            lines.append(_goal(faster, key, times(step), step[1] > 1))
        wanted = 2.0 if cuda else 1.3
        step = ratios(measured, PLAIN, "unetr")
        goal = f"UNETR default at least {wanted} times as fast as the plain assembly"
        lines.append(_goal(goal, key, times(step), step[1] >= wanted))
        for ours in ("unetr", "unetr, recomputing") if cuda else ():
            if ours in peers:
                share = peers[ours]["peak_gib"] / peers[PLAIN]["peak_gib"]
                goal = f"{ours}: at most 0.6 of the plain assembly's memory"
                lines.append(_goal(goal, key, f"{share:.2f}", share <= 0.6))
        if cuda and vit == "ViT-L":
            share = share_of_peak(measured, "recommended, LoRA")
            goal = "ViT-L, LoRA: at least 45 % of the bfloat16 peak"
            lines.append(_goal(goal, key, f"{share:.0%}", share >= 0.45))
    return lines


def times(quartiles: list[float]) -> str:
    """Write a ratio and its quartiles."""
    low, middle, high = quartiles
    return f"{middle:.2f} times ({low:.2f} to {high:.2f})"


def _goal(goal: str, where: str, measured: str, met: bool) -> str:
    return f"| {goal} | {where} | {measured} | {'yes' if met else 'no'} |"


def draw(known: dict[str, Measured], file: Path) -> None:
    """Draw each network's step and inference as ratios to the U-Net's, a panel per plan."""
    figure, axes = plt.subplots(1, len(known), figsize=(10, 6.6), sharey=True, squeeze=False)
    first = next(iter(known.values()))
    names = sorted(first["peers"], key=lambda n: -ratios(first, n, BASE)[1])
    for axis, (key, measured) in zip(axes[0], known.items(), strict=True):
        for row, name in enumerate(names):
            if name not in measured["peers"]:
                continue
            color, marker = STYLES[measured["peers"][name]["kind"]]
            low, middle, high = ratios(measured, name, BASE)
            inference = ratios(measured, name, BASE, "inferences")[1]
            axis.plot([low, high], [row + 0.18] * 2, color=color, lw=2)
            axis.plot(middle, row + 0.18, marker, color=color, ms=8)
            axis.plot(inference, row - 0.22, marker, color=color, ms=6, mfc="white")
            axis.text(9.5, row, f"{middle:.2f}", ha="right", va="center", fontsize=9)
        axis.axvline(1, color="gray", lw=1)
        device, vit, plan, *changed = key.split(", ", 3)
        title = "\n".join([f"{device}, {vit}, {plan}", *changed])
        axis.set(title=title, xscale="log", xlabel=f"time / {BASE}'s (log scale)")
        axis.set_xlim(0.2, 10)
        ticks = [0.25, 0.5, 1, 2, 4, 8]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names)
    handles = [
        mpl.lines.Line2D([], [], color=color, marker=marker, ls="", ms=9, label=KINDS[kind])
        for kind, (color, marker) in STYLES.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    figure.suptitle(
        "Filled, and in figures: a training step, with quartiles. Hollow: inference.", fontsize=11
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    write_document()
