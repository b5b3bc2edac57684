"""What torch.compile is worth to a training step on CUDA, in three forms, and what it costs first.

    python benchmarks/compile_forms.py [--device cuda] [--head "recommended, LoRA"] [--size large]
        [--patch 512] [--batch 8] [--forms parts whole graphs] [--rounds 6] [--against "PEER"]
        [--profile]

A network of peers.py, once eager, once compiled as a whole (as nnU-Net has it), once so and
replayed as CUDA graphs (``mode="reduce-overhead"``), once its blocks and its head by themselves.
Steps are speed.py's: bfloat16 autocast on CUDA, Dice and cross-entropy, AdamW. All forms take steps
in turn, so that what else the machine does falls on all of them; ratios are eager's over the form's
within a round. The seconds of the first three steps are what compiling costs, with an empty cache
unless ``TORCHINDUCTOR_CACHE_DIR`` names one. Memory is the peak of a step, of the network alone;
what CUDA graphs hold is not in it.

``--meet FOLDER N`` lets N such processes compile side by side, and time one after the other.
"""

import argparse
import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median, quantiles
from typing import IO

if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # before torch is imported
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_")

import torch
from peers import Peer, Plan, peers, plans
from speed import seconds
from speed_step import draw, infer, train
from torch import nn
from torch.profiler import ProfilerActivity, profile


def main() -> None:
    """Compile, time, and print a line per form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--head", choices=peers(), default="recommended, LoRA", metavar="PEER")
    parser.add_argument("--size", default="large", help="of the ViT, or small, base")
    parser.add_argument("--patch", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["parts", "whole"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--against", choices=peers(), metavar="PEER", help="eager, timed as well")
    parser.add_argument("--profile", action="store_true", help="of the first form's step")
    parser.add_argument("--meet", nargs=2, metavar=("FOLDER", "N"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # as nnU-Net sets it
    plan = replace(
        plans()["HENuclei"], patch=(arguments.patch, arguments.patch), batch=arguments.batch
    )
    chosen = {"eager": arguments.head} | dict.fromkeys(arguments.forms, arguments.head)
    if arguments.against:
        chosen[arguments.against] = arguments.against
    works, facts = {}, {}
    for form, peer in chosen.items():
        works[form], facts[form] = enter(form, peers()[peer], plan, arguments)
        print(f"{arguments.head}, {arguments.size}: {form}: {facts[form]}", flush=True)
    if arguments.meet:
        meet(Path(arguments.meet[0]), int(arguments.meet[1]))
    rows = alternate(works, arguments.device, arguments.rounds)
    where = f"{arguments.head}, ViT-{arguments.size}, {arguments.patch} px, {arguments.batch}"
    for form, row in rows.items():
        print(f"| {where} | {form} | {facts[form]} | {row} |", flush=True)
    if arguments.profile:
        show_profile(works[arguments.forms[0]][0])


def enter(
    form: str, peer: Peer, plan: Plan, arguments: argparse.Namespace
) -> tuple[tuple[Callable[[], None], Callable[[], None]], str]:
    """Build a network in a form; return its step and its inference, and what they cost."""
    device = arguments.device
    torch.manual_seed(0)
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    with device:
        network = peer.build(plan, arguments.size).to(device).train()
    optimizer = peer.optimizer(network)
    run = FORMS.get(form, as_it_is)(network)
    image, target = draw(plan, device)

    def step() -> None:
        train(run, optimizer, image, target)

    def inference() -> None:
        infer(run, image)

    def three_steps() -> None:
        for _ in range(3):
            if cuda:
                torch.cuda.reset_peak_memory_stats(device)
            step()

    facts = f"first steps {clocked(three_steps):.1f} s"
    if cuda:
        peak = (torch.cuda.max_memory_allocated(device) - before) / 2**30
        facts += f", {peak:.2f} GiB"
    facts += f", first inference {clocked(inference):.1f} s"
    if cuda:  # others' turn comes
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return (step, inference), facts


def clocked(work: Callable[[], None]) -> float:
    """Return the seconds of some work, once."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def as_it_is(network: nn.Module) -> nn.Module:
    """Compile nothing."""
    return network


def by_parts(network: nn.Module) -> nn.Module:
    """Compile each block and the head by themselves, in place: blocks share their graphs."""
    backbone, head = network.get_submodule("backbone"), network.get_submodule("head")
    for part in (*backbone.get_submodule("blocks"), head):
        part.compile()
    return network


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parts": by_parts,
    "whole": torch.compile,
    "graphs": partial(torch.compile, mode="reduce-overhead"),
}


def meet(folder: Path, number: int) -> None:
    """Wait until so many processes have come here; then hold the device alone until the end."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    while sum(1 for file in folder.iterdir() if file.name.isdecimal()) < number:
        time.sleep(0.2)
    fcntl.flock(_lock_of(folder), fcntl.LOCK_EX)


@cache
def _lock_of(folder: Path) -> IO[str]:
    return (folder / "lock").open("w")  # kept open, and so held, until the process ends


def alternate(
    works: dict[str, tuple[Callable[[], None], ...]], device: torch.device, rounds: int
) -> dict[str, str]:
    """Let all forms work in turn; return medians in ms, and eager's over each one's."""
    taken: dict[str, list[list[float]]] = {form: [[], []] for form in works}
    for turn in range(rounds + 1):
        for form, both in works.items():
            for times, work in zip(taken[form], both, strict=True):
                value = seconds(work, device)
                if turn:  # the first round warms up
                    times.append(value)
    rows = {}
    for form, both in taken.items():
        said = []
        for eager, times in zip(taken["eager"], both, strict=True):
            ratios = [a / b for a, b in zip(eager, times, strict=True)]
            low, middle, high = quantiles(ratios)
            said.append(f"{1000 * median(times):.1f} ms, {middle:.2f} ({low:.2f} to {high:.2f})")
        rows[form] = " | ".join(said)
    return rows


def show_profile(step: Callable[[], None]) -> None:
    """Print what took the GPU's time in three steps."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    kernels = [
        (event.self_device_time_total, event.count, event.key)
        for event in found.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    whole = sum(time_us for time_us, _, _ in kernels)
    print(f"{whole / 3000:.1f} ms of the GPU a step")
    for time_us, count, name in sorted(kernels, reverse=True)[:30]:
        print(f"{time_us / whole:6.1%} {time_us / 3000:7.2f} ms {count / 3:6.0f}x {name[:90]}")


if __name__ == "__main__":
    main()
