"""Time from the command to the first training step, beside stock nnU-Net's.

    python benchmarks/start_up.py WORK_FOLDER [--rounds 5] [--device cpu] [--only ROW ...]

The demo's data set is planned and preprocessed in the folder, and random weights of a DINOv3 ViT-L
are written there (1.2 GB, twice), once. Then trainings start in fresh processes, by turns, and are
ended where they have a first batch and would take a step with it. Compiled Python files are kept in
the folder, as an installation keeps them; a first round, which writes them, is not counted. Printed
are medians of the time and of the processor time of the training's own process, which other load on
the machine changes less.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

DATASET = "900"
PLAN = ["nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "-npfp", "1", "-np", "1"]
CHILD = Path(__file__).with_name("first_step.py")
TINY = {"model_path": "segformer", "backbone": "test_vit", "pretrained": False}
LARGE = {"model_path": "segformer", "backbone": "dinov3", "backbone_size": "large"}


def main() -> None:
    """Time each start by turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", metavar="ROW")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    environment = prepared(work)
    configs: dict[str, list[str]] = {"stock": []}
    for name, lora, model in (
        ("tiny ViT, from scratch", False, TINY),
        ("tiny ViT, LoRA", True, TINY),
        ("ViT-L, LoRA, .safetensors", True, with_weights(work / "large.safetensors")),
        ("ViT-L, LoRA, .pth", True, with_weights(work / "large.pth")),
    ):
        file = work / f"start_{len(configs)}.yaml"
        file.write_text(yaml.safe_dump({"model": model, "lora": {"enabled": lora}}))
        configs[name] = ["--config", str(file)]
    names = arguments.only or [*configs]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for round_ in range(arguments.rounds + 1):
        for name in names:
            taken = first_step(arguments.device, configs[name], environment)
            if round_:
                seconds[name].append(taken)
    print("| | s to the first step | ratio to stock | processor s | ratio | all runs |")
    print("|---|---|---|---|---|---|")
    for name, taken in seconds.items():
        runs = ", ".join(f"{s:.1f}" for s, _ in taken)
        times, stock = zip(*taken, strict=True), zip(*seconds.get("stock", taken), strict=True)
        both = zip(map(median, times), map(median, stock), strict=True)
        figures = " | ".join(f"{ours:.1f} | {ours / theirs:.2f}" for ours, theirs in both)
        print(f"| {name} | {figures} | {runs} |")


def with_weights(file: Path) -> dict[str, Any]:
    """Return a model that starts from a file."""
    return LARGE | {"checkpoint_path": str(file)}


def prepared(work: Path) -> dict[str, str]:
    """Write data and weights that are not there yet; return the environment of the trainings."""
    from nnunet_vit_trainer.demo.data import write_dataset

    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    environment = {**os.environ, **folders, "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "2"}
    environment |= {"PYTHONPYCACHEPREFIX": str(work / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    if not (work / "preprocessed").exists():
        write_dataset(work / "raw", num_train=10, num_test=1)
        planner = Path(sys.executable).parent / PLAN[0]
        subprocess.run([planner, *PLAN[1:]], env=environment, check=True, capture_output=True)
    if not (work / "large.pth").exists():
        write_weights(work)
    return environment


def write_weights(work: Path) -> None:
    """Write random weights in both formats."""
    import torch
    from safetensors.torch import save_file

    from vit_backbone import create_backbone

    tensors = create_backbone("dinov3", "large", pretrained=False)[0].state_dict()
    save_file(tensors, work / "large.safetensors")
    torch.save(tensors, work / "large.pth")


def first_step(device: str, more: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Start a training, return what its first step took to come, and end it with its workers."""
    command = [sys.executable, str(CHILD), DATASET, "2d", "all", "-device", device, *more]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    begun = time.time()
    process = subprocess.Popen(command, env=environment, start_new_session=True, **output)
    said = []
    try:
        for line in process.stdout:
            if line.startswith("first step "):
                at, processor = map(float, line.split()[2:])
                return at - begun, processor
            said.append(line)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise SystemExit("".join(said))


if __name__ == "__main__":
    main()
