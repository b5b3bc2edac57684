"""Dice of heads and ways of tuning at equal iterations, beside stock nnU-Net: docs/results.md.

    python benchmarks/quality.py WORK_FOLDER [--runs NAME ...] [--datasets 101 102] [--seeds 1]
                                 [--device cpu] [--data FOLDER] [--weights FILE] [--full]

Prepares the two data sets below WORK_FOLDER, trains what is missing there (a run that was killed
is trained anew) and writes the table into docs/results.md. By default the subset for a CPU; --full
is linear, UNETR, UNETR light and SegFormer x frozen, LoRA and full, and a ViT from scratch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATASETS = {101: "Dataset101_HENuclei", 102: "Dataset102_Colin27"}
STOCK, OURS = "nnUNetTrainer_400iterations", "nnUNetTrainerNoDeepSupervision_vit"
HEADS = {
    "linear": {"model_path": "linear"},
    "unetr": {"model_path": "unetr"},
    "unetr_light": {
        "model_path": "unetr",
        "decoder": {"decoder_channels": [128, 64, 32, 16, 16]},
    },
    "segformer": {"model_path": "segformer"},
}
CPU_RUNS = ("stock", "unetr_light_frozen", "unetr_light_lora", "segformer_lora", "linear_lora")
FULL_RUNS = (
    "stock",
    *(f"{head}_{tune}" for head in HEADS for tune in ("frozen", "lora", "full")),
    "unetr_light_scratch",
)
TRAIN = {
    "initial_lr": 0.002,
    "num_epochs": 8,
    "num_iterations_per_epoch": 50,
    "num_val_iterations_per_epoch": 10,
}
BEGIN, END = "<!-- written by benchmarks/quality.py -->", "<!-- end -->"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", nargs="+", choices=FULL_RUNS)
    parser.add_argument("--datasets", nargs="+", type=int, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT.parent / "shared/weights/vit_small_patch14_dinov2_layout.fp16.safetensors",
    )
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    set_environment(work)
    for dataset in arguments.datasets:
        prepare(dataset, arguments.data, work)
    for name in arguments.runs or (FULL_RUNS if arguments.full else CPU_RUNS):
        for dataset in arguments.datasets:
            for seed in range(arguments.seeds):
                if not summary(work, name, dataset, seed).is_file():
                    train(work, name, dataset, seed, arguments.device, arguments.weights.resolve())
    write_table(work, arguments.seeds)


def set_environment(work: Path) -> None:
    """Point nnU-Net, and the commands that are started from here, below the work folder."""
    for name in ("raw", "preprocessed"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
        (work / name).mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_extTrainer"] = str(ROOT / "benchmarks" / "stock_trainer")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def results(work: Path, seed: int) -> Path:
    """Return the results folder of one repetition; nnU-Net draws its own random numbers."""
    return work / f"results_{seed}"


def prepare(dataset: int, data: Path, work: Path) -> None:
    """Copy, plan and preprocess a data set, and give it its split."""
    name = DATASETS[dataset]
    splits = work / "preprocessed" / name / "splits_final.json"
    if splits.is_file():
        return
    shutil.copytree(data / name, work / "raw" / name, dirs_exist_ok=True)
    command = ["nnUNetv2_plan_and_preprocess", "-d", str(dataset), "-c", "2d", "-np", "2"]
    subprocess.run(command, check=True)
    shutil.copyfile(data / name / "splits_final.json", splits)


def train(work: Path, name: str, dataset: int, seed: int, device: str, weights: Path) -> None:
    """Train and validate one run, its output into a log beside the results."""
    if name == "stock":
        command = ["nnUNetv2_train", str(dataset), "2d", "0", "-tr", STOCK]
    else:
        config = work / "configs" / f"{name}.yaml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(yaml.safe_dump(config_of(name, weights)))
        command = ["nnUNetv2_train_vit", str(dataset), "2d", "0", "--config", str(config)]
    log = work / f"{name}_{dataset}_{seed}.log"
    print(f"{log.stem} ...", flush=True)
    with log.open("w") as stream:
        done = subprocess.run(
            [*command, "-device", device],
            env=os.environ | {"nnUNet_results": str(results(work, seed))},
            stdout=stream,
            stderr=stream,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{log.stem} failed: see {log}")


def config_of(name: str, weights: Path) -> dict:
    """Return the config of a run of ours: its head, its way of tuning, the common recipe."""
    head, tune = name.rsplit("_", 1)
    model = {**HEADS[head], "backbone": "dinov2", "backbone_size": "small"}
    if tune == "scratch":
        return {"model": {**model, "pretrained": False, "tune": "full"}, "train": TRAIN}
    return {"model": {**model, "checkpoint_path": str(weights), "tune": tune}, "train": TRAIN}


def summary(work: Path, name: str, dataset: int, seed: int) -> Path:
    """Return the file with a run's Dice, which is there once the run is finished."""
    trainer, plans = (STOCK, "") if name == "stock" else (OURS, f"_{name}")
    folder = results(work, seed) / DATASETS[dataset] / f"{trainer}__nnUNetPlans{plans}__2d"
    return folder / "fold_0" / "validation" / "summary.json"


def dice(work: Path, name: str, dataset: int, seeds: int) -> str:
    """Return a cell: mean foreground Dice, with its spread where there are several runs."""
    files = [summary(work, name, dataset, seed) for seed in range(seeds)]
    found = [
        json.loads(file.read_text())["foreground_mean"]["Dice"] for file in files if file.is_file()
    ]
    if not found:
        return ""
    spread = f" ± {stdev(found):.3f} (n={len(found)})" if len(found) > 1 else ""
    return f"{mean(found):.3f}{spread}"


def write_table(work: Path, seeds: int) -> None:
    """Put the table of all runs that are there between the marks in docs/results.md."""
    lines = ["| run | 101 HENuclei | 102 Colin27 |", "|---|---|---|"]
    for name in FULL_RUNS:
        cells = [dice(work, name, dataset, seeds) for dataset in DATASETS]
        if any(cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    document = ROOT / "docs" / "results.md"
    before, rest = document.read_text().split(BEGIN)
    after = rest.split(END)[1]
    document.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
