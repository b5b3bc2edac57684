"""Whether the probe ranks backbones as fine-tuning does: the rank correlation of the two.

    nnUNetv2_probe_vit 102 --backbones WEIGHTS --random --patch_size own 16
    python benchmarks/quality.py WORK_FOLDER --runs NAME ...
    python benchmarks/probe_rank.py probe_Dataset102_Colin27/probe.json ...
        [--record FILE] [--head NAME] [--score dice]

Of each row of a probe's table it looks up the run that fine-tunes the same: pretrained weights or
none, patch size and taps, under one head. Runs that are not recorded yet are listed. Means are over
the seeds that are recorded; Spearman's and Kendall's coefficients are 1 where both orders agree.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from quality import RECORD, variant_of
from scipy.stats import kendalltau, spearmanr

HEAD = "segformer_pyramid_shortcut_stem"  # "recommended" until 28 November 2026, 256 wide


def main() -> None:
    """Print a table per probe, and how far the orders agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probes", nargs="+", type=Path, metavar="PROBE_JSON")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--head", default=HEAD)
    parser.add_argument("--score", default="dice", help="a key of the record, such as pooled_dice")
    arguments = parser.parse_args()
    record = json.loads(arguments.record.read_text())
    for file in arguments.probes:
        content = json.loads(file.read_text())
        number = int(content["dataset"].removeprefix("Dataset")[:3])
        pairs = {
            run_of(row, arguments.head): row["pixels"]["mean"]
            for row in content["rows"]
            if not row["failed"]
        }
        print(f"\n## {content['dataset']}: {file}\n")
        print("\n".join(report(pairs, record, number, arguments.score)))


def run_of(row: dict[str, Any], head: str) -> str:
    """Name the run that fine-tunes what a row probed."""
    own = row["model"]["patch_size"] in (None, 14)  # of the weights that quality.py tunes
    return variant_of(
        f"{head}_{'scratch' if row['random'] else 'lora'}",
        patch_size=None if own else row["patch"],
        last_tap=row["taps"] == "last",
    )


def report(probed: dict[str, float], record: dict[str, Any], dataset: int, score: str) -> list[str]:
    """Return the table, the coefficients, and the runs that are missing."""
    found = {name: seeds_of(name, record, dataset, score) for name in probed}
    lines = ["| run | probe | fine-tuned (seeds) |", "|---|---|---|"]
    for name, value in probed.items():
        tuned = f"{mean(found[name]):.3f} ({len(found[name])})" if found[name] else ""
        lines.append(f"| {name} | {value:.3f} | {tuned} |")
    both = [(probed[name], mean(values)) for name, values in found.items() if values]
    if len(both) > 2:
        ours, theirs = zip(*both, strict=True)
        rho, tau = spearmanr(ours, theirs), kendalltau(ours, theirs)
        lines += ["", f"{len(both)} pairs: Spearman {rho.statistic:.2f} (p {rho.pvalue:.3f}), "
                  f"Kendall {tau.statistic:.2f} (p {tau.pvalue:.3f})"]  # fmt: skip
    missing = [name for name, values in found.items() if not values]
    if missing:
        command = "python benchmarks/quality.py WORK_FOLDER"
        lines += ["", f"not recorded: {command} --datasets {dataset} --runs {' '.join(missing)}"]
    return lines


def seeds_of(name: str, record: dict[str, Any], dataset: int, score: str) -> list[float]:
    """Return what the recorded seeds of a run reached."""
    return [
        of[score] for key, of in record.items() if key.rpartition("_")[0] == f"{name}_{dataset}"
    ]


if __name__ == "__main__":
    main()
