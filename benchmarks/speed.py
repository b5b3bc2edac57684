"""What a training step, an inference and their memory cost, beside other projects' networks.

    uv run --all-packages --all-extras --with-requirements benchmarks/speed.requirements.txt \\
        python benchmarks/speed.py [--device cpu] [--rounds 8] [--only NAME ...] [--compile]
        [--plans NAME ...] [--sizes NAME ...] [--patch PX] [--batch N] [--record FILE]

All networks of peers.py stand in one process and take a step and an inference in turn, so that
what else the machine does falls on all of them; ratios are taken within a round. A step is
nnU-Net's: its loss, its clipping, the planned patch and batch; AdamW for ViTs, its own SGD for its
U-Nets. On a CPU one thread computes in float32, and its own seconds are counted (the process's, not
the clock's); on CUDA bfloat16 autocast, and the clock's. The peak is that of a matrix product or a
convolution, the faster, timed in every round. Memory of a step: on CUDA what was allocated at its
peak, of the network alone; on a CPU it is counted, as in head_costs.py. Written to
benchmarks/results/speed.json and, by speed_report.py, to docs/speed.md. With ``--only`` nothing is
recorded, unless ``--record`` names where; ``--patch`` and ``--batch`` take the place of the plan's.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from head_costs import count_peak
from peers import Peer, Plan, peers, plain_and_ours, plans
from speed_report import RECORD, write_document
from speed_step import count_flop, draw, infer, train, train_on_noise
from torch import nn

ON_CUDA = 5
"""Steps in a row: a training waits for the device once in a while, not at each step."""
PACKAGES = ("torch", "timm", "nnunetv2", "transformers", "segmentation-models-pytorch", "monai")


@dataclass
class Entry:
    """A network in the race."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    facts: dict[str, Any]
    steps: list[float] = field(default_factory=list)
    inferences: list[float] = field(default_factory=list)


def main() -> None:
    """Measure for every plan and size of the ViT, record, and write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--plans", nargs="+", choices=plans(), default=list(plans()))
    parser.add_argument("--sizes", nargs="+", default=["small"], help="of the ViT, or base, large")
    parser.add_argument("--only", nargs="+", choices=peers(), metavar="NAME")
    parser.add_argument("--compile", action="store_true", help="all but the plain assembly")
    parser.add_argument("--patch", type=int, help="side in pixels, instead of the plan's")
    parser.add_argument("--batch", type=int, help="instead of the plan's")
    parser.add_argument("--record", type=Path, help="a file, instead of the repository's record")
    arguments = parser.parse_args()
    device = arguments.device
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # as nnU-Net sets it
    check_the_plain_assembly()
    file = None if arguments.only else RECORD
    if arguments.record:
        file = arguments.record.resolve()
    for size in arguments.sizes:
        for name in arguments.plans:
            plan = plans()[name]
            if arguments.patch:
                plan = replace(plan, patch=(arguments.patch, arguments.patch))
            plan = replace(plan, batch=arguments.batch or plan.batch)
            chosen = {n: p for n, p in peers().items() if n in (arguments.only or peers())}
            measured = measure(plan, size, chosen, arguments)
            if file is None:
                print(json.dumps(measured, indent=1))
            else:
                record(key_of(device, size, name, plan), measured, file)
    if file == RECORD:
        write_document()


def key_of(device: torch.device, size: str, name: str, plan: Plan) -> str:
    """Name what is measured: a plan that is not nnU-Net's own says its patch and batch."""
    own = plan == plans()[name]
    changed = "" if own else f", {'x'.join(map(str, plan.patch))} px, batch {plan.batch}"
    return f"{device.type}, ViT-{size[0].upper()}, {name}{changed}"


def measure(
    plan: Plan, size: str, chosen: dict[str, Peer], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Let networks run by turns; return their times per round, and what else they cost."""
    device = arguments.device
    entries = {}
    for name, peer in chosen.items():
        print(f"{name} ...", flush=True)
        compiled = arguments.compile and peer.kind != "plain"
        entries[name] = enter(peer, plan, size, device, compiled)
    image, target = draw(plan, device)
    peaks = []
    for turn in range(arguments.rounds + 1):
        peak = matrix_peak(device)
        for entry in entries.values():
            step = partial(train, entry.network, entry.optimizer, image, target)
            times = seconds(step, device), seconds(partial(infer, entry.network, image), device)
            if turn:  # the first round warms up
                entry.steps.append(times[0])
                entry.inferences.append(times[1])
        if turn:
            peaks.append(peak)
        print(f"round {turn} of {arguments.rounds}", flush=True)
    return {
        "machine": machine(device),
        "versions": {name: version(name) for name in PACKAGES},
        "compiled": arguments.compile,
        "patch": plan.patch,
        "batch": plan.batch,
        "channels": plan.channels,
        "peaks": [round(peak / 1e9, 1) for peak in peaks],
        "peers": {
            name: {
                "kind": chosen[name].kind,
                **entry.facts,
                "steps": [round(value, 5) for value in entry.steps],
                "inferences": [round(value, 5) for value in entry.inferences],
            }
            for name, entry in entries.items()
        },
    }


def enter(peer: Peer, plan: Plan, size: str, device: torch.device, compiled: bool) -> Entry:
    """Build a network, and count what it costs while no other stands beside it."""
    torch.manual_seed(0)
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    with device:  # random weights are drawn where it is quick
        network = peer.build(plan, size).to(device).train()
    facts = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
        **count_flop(network, plan),
    }
    step = partial(train_on_noise, plan)
    if not cuda:
        facts["peak_gib"] = round(count_peak(network, step, peer.optimizer), 3)
        return Entry(network, peer.optimizer(network), facts)
    optimizer = peer.optimizer(network)
    network = torch.compile(network) if compiled else network
    for _ in range(3):  # the first ones compile, and try algorithms
        torch.cuda.reset_peak_memory_stats(device)
        step(network, optimizer)
    peak = torch.cuda.max_memory_allocated(device) - before
    return Entry(network, optimizer, {**facts, "peak_gib": round(peak / 2**30, 3)})


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time some work: the process's own seconds on a CPU, the clock's of some in a row on CUDA."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(ON_CUDA):
        work()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / ON_CUDA


def matrix_peak(device: torch.device) -> float:
    """Return the FLOP/s of a matrix product or a 3x3 convolution: of the faster, medians of five.

    On some CPUs torch's products run in another library than its convolutions, at half their rate.
    """
    cuda = device.type == "cuda"
    options = {"device": device, "dtype": torch.bfloat16 if cuda else torch.float32}
    side, width, batch = (8192, 1024, 64) if cuda else (1024, 256, 2)
    one, other = (torch.randn(side, side, **options) for _ in range(2))
    image = torch.randn(batch, width, 64, 64, **options)
    kernels = torch.randn(width, width, 3, 3, **options)
    works = {
        2 * side**3: lambda: one @ other,
        2 * 9 * width**2 * batch * 64**2: lambda: F.conv2d(image, kernels, padding=1),
    }
    rates = []
    for flop, work in works.items():
        work()
        rates.append(flop / median(seconds(work, device) for _ in range(5)))
    return max(rates)


def check_the_plain_assembly() -> None:
    """Refuse to compare ours with an assembly that answers otherwise."""
    plain, ours = plain_and_ours(embed_dim=384, classes=4)
    taps, image = [torch.randn(1, 384, 4, 3) for _ in range(4)], torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(plain(taps, image), ours(taps, image), rtol=1e-4, atol=1e-5)


def machine(device: torch.device) -> str:
    """Name what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"one core, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def record(key: str, measured: dict[str, Any], file: Path) -> None:
    """Add what was measured to a record, a line for each network."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    text = json.dumps(dict(sorted((known | {key: measured}).items())), indent=1)
    file.write_text(text + "\n")


if __name__ == "__main__":
    main()
