"""Seconds per training step of each head, as a ratio to the linear head's: alternating runs.

    python benchmarks/head_steps.py [--rounds 8] [--only NAME] [--threads 1] [--side 256] [--lora]

All heads stand on the same random ViT-S/16 (DINOv3) in one process and take a step in turn, batch
2 in float32, all of the backbone training (or LoRA); a round's ratios are to the linear head's step
of that round, so that what else the machine does falls on all of them. Medians, with quartiles;
forward is without gradients, in evaluation mode. Written to benchmarks/results/steps.json, too,
where heads that were left away keep what was measured before.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from head_costs import BATCH, adamw, training_step
from heads import HEADS

from vit_backbone import ViTSegmentationModel, find_head

RECORD = Path(__file__).parent / "results" / "steps.json"


def build(head: str, lora: bool) -> ViTSegmentationModel:
    """Build a head on a ViT-S/16 with random weights."""
    name, options = HEADS[head]
    create = find_head(name)
    return create("dinov3", "small", num_classes=3, pretrained=False, use_lora=lora, **options)


def seconds(call: Callable[[], object]) -> float:
    """Time a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(rounds: int, heads: list[str], side: int, lora: bool) -> None:
    """Print a row per head."""
    models = {head: build(head, lora).train() for head in heads}
    optimizers = {head: adamw(model) for head, model in models.items()}
    image = torch.randn(BATCH, 3, side, side)
    steps: dict[str, list[float]] = {head: [] for head in heads}
    forwards: dict[str, list[float]] = {head: [] for head in heads}
    for turn in range(rounds + 1):
        for head, model in models.items():
            step = seconds(lambda m=model, h=head: training_step(m, optimizers[h], side))
            model.eval()
            with torch.inference_mode():
                forward = seconds(lambda m=model: m(image))
            model.train()
            if turn:  # the first round warms up
                steps[head].append(step)
                forwards[head].append(forward)
    print("| head | step / linear's (quartiles) | forward / linear's (quartiles) | step s |")
    print("|---|---|---|---|")
    record: dict[str, dict[str, str]] = {"step": {}, "forward": {}}
    for head in heads:
        cells = [ratios(times[head], times["linear"]) for times in (steps, forwards)]
        record["step"][head], record["forward"][head] = cells
        print(f"| {head} | {cells[0]} | {cells[1]} | {statistics.median(steps[head]):.2f} |")
    if not lora and side == 256:
        before = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
        merged = {kind: before.get(kind, {}) | rows for kind, rows in record.items()}
        RECORD.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")


def ratios(times: list[float], linear: list[float]) -> str:
    """Return the median ratio to the linear head's time of the same round, and the quartiles."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times, linear, strict=True)])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--lora", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = ["linear", *(head for head in arguments.only if head != "linear")]
    main(arguments.rounds, wanted, arguments.side, arguments.lora)
