"""What each head costs: parameters, GFLOP and peak training memory, counted without a GPU.

    python benchmarks/head_costs.py                        # ViT-S/B/L, 256 and 512 px
    python benchmarks/head_costs.py --only unetr           # rows whose head's name has it
    python benchmarks/head_costs.py --measure segformer small 256   # a real step beside the count

Parameters: of the head, and of the whole model. GFLOP: torch's FlopCounterMode on the meta device,
one image forward, whole model. Memory: torch's MemTracker over FakeTensorMode, the peak of a
training step of batch 2 in float32 with LoRA r 8 on qkv and AdamW: parameters, buffers, gradients,
optimizer states, activations and temporary tensors between operators. Not counted: workspaces
inside of operators (convolution algorithms), the allocator's slack, the CUDA context.
"""

import argparse
import copy
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from heads import HEADS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_vit_trainer.training.shortage import counting
from vit_backbone import ViTSegmentationModel, find_head

SIZES, SIDES = ("small", "base", "large"), (256, 512)
CLASSES, BATCH = 3, 2


def build(head: str, size: str) -> ViTSegmentationModel:
    """Build a head on DINOv3 with the default LoRA and random weights."""
    name, options = HEADS[head]
    create = find_head(name)
    return create("dinov3", size, num_classes=CLASSES, pretrained=False, **options).train()


def count_gflop(model: ViTSegmentationModel, side: int) -> float:
    """GFLOP of one image's forward pass."""
    model = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 1e9


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW of what trains."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return counting.with_states(torch.optim.AdamW(parameters, foreach=True))


def training_step(model: ViTSegmentationModel, optimizer: torch.optim.Optimizer, side: int) -> None:
    """Take a step where the model is."""
    device = next(model.parameters()).device
    image = torch.randn(BATCH, 3, side, side, device=device)
    target = torch.zeros(BATCH, side, side, dtype=torch.long, device=device)
    F.cross_entropy(model(image), target).backward()
    optimizer.step()
    optimizer.zero_grad()


def count_peak(
    model: nn.Module,
    step: Callable[[nn.Module, torch.optim.Optimizer], None],
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
) -> float:
    """GiB at the peak of a training step; see `counting.count_peak`."""
    return counting.count_peak(model, step, optimizer_of) / 2**30


def measure_peak(head: str, size: str, side: int) -> float:
    """GiB that a real step takes: CUDA's peak, or the process's memory over that before it."""
    if torch.cuda.is_available():
        model = build(head, size).cuda()
        optimizer = adamw(model)
        torch.cuda.reset_peak_memory_stats()
        training_step(model, optimizer, side)
        return torch.cuda.max_memory_allocated() / 2**30
    warm = build("linear", "small")  # what is loaded and kept once is there before
    training_step(warm, adamw(warm), 64)
    before = resident("VmRSS")
    model = build(head, size)
    optimizer = adamw(model)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    training_step(model, optimizer, side)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """GiB of this process's memory, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 2**20


def main(only: str) -> None:
    """Print a row per head and backbone."""
    print("| head | ViT | parameters M, head / all | GFLOP 256 / 512 px | GiB 256 / 512 px |")
    print("|---|---|---|---|---|")
    for head, size in ((h, s) for h in HEADS if only in h for s in SIZES):
        model = build(head, size)
        parts = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model.head, model)]
        gflop = [count_gflop(model, side) for side in SIDES]
        peak = [count_peak(model, partial(training_step, side=side)) for side in SIDES]
        print(
            f"| {head} | {size[0].upper()} | {parts[0]:.2f} / {parts[1]:.1f} "
            f"| {gflop[0]:.0f} / {gflop[1]:.0f} | {peak[0]:.2f} / {peak[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--measure", nargs=3, metavar=("HEAD", "SIZE", "SIDE"))
    arguments = parser.parse_args()
    if arguments.measure:
        head, size, side = arguments.measure
        counted = count_peak(build(head, size), partial(training_step, side=int(side)))
        measured = measure_peak(head, size, int(side))
        print(f"{head} {size} {side}: counted {counted:.2f} GiB, measured {measured:.2f} GiB")
    else:
        main(arguments.only)
