"""Train heads at equal iterations beside stock nnU-Net, and record what they reached.

    uv run --with surface-distance python benchmarks/quality.py WORK_FOLDER
        [--runs NAME ...] [--datasets 101 102] [--seeds 0 1 2] [--device cpu] [--jobs 2]
        [--data FOLDER] [--weights FILE]

A run is stock, or a head of heads.py and a way of tuning: linear_lora, unetr_frozen, linear_full,
unetr_light_scratch; behind it, for probe_rank.py, -p16 (patches resampled to 16 px) and -last (the
last block as all four taps). It trains 16 epochs of 25 iterations = 400 at the planned patch and
batch, by its seed, validates, and is recorded in benchmarks/results/quality.json: the validation's
Dice (over cases as nnU-Net's, and pooled), surface Dice at 1 px and HD95, and the pseudo Dice of
each epoch. Runs on CUDA, in nnU-Net's and our mixed precision, stand in quality_cuda.json.
Recorded runs are not trained again; one that was killed is trained anew. `quality_report.py` makes
tables and pictures of it.

Runs stand side by side, one thread and no data worker each: on one machine a run of ours is then
reproduced by its seed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml
from heads import HEADS

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "quality.json"
DATA = ROOT.parent / "shared" / "data"
WEIGHTS = ROOT.parent / "shared" / "weights" / "vit_small_patch14_dinov2_layout.fp16.safetensors"
DATASETS = {101: "Dataset101_HENuclei", 102: "Dataset102_Colin27"}
STOCK, OURS = "nnUNetTrainer_400iterations", "nnUNetTrainerNoDeepSupervision_vit"
TUNES = ("lora", "frozen", "full", "scratch")
VARIANTS: dict[str, dict[str, Any]] = {
    "p16": {"patch_size": 16},
    "last": {"layer_indices": [-1] * 4},
}
ENDS = ("", "-p16", "-last", "-p16-last")
ALL_RUNS = ("stock", *(f"{head}_{tune}{end}" for head in HEADS for tune in TUNES for end in ENDS))
RUNS = (
    "linear_lora",
    "linear_stem_lora",
    "segformer_lora",
    "segformer_pyramid_shortcut_stem_lora",
    "segformer_64_pyramid_shortcut_stem_lora",
    "unetr_light_lora",
    "unetr_light_shortcut_lora",
    "unetr_light_shortcut_stem_lora",
    "stock",
)
TRAIN = {
    "initial_lr": 0.002,
    "num_epochs": 16,
    "num_iterations_per_epoch": 25,
    "num_val_iterations_per_epoch": 10,
}
_recording = threading.Lock()


def main() -> None:
    """Train and record what is not recorded yet, seed by seed."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", nargs="+", choices=ALL_RUNS, default=RUNS, metavar="NAME")
    parser.add_argument("--datasets", nargs="+", type=int, default=list(DATASETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    work, weights = arguments.work.resolve(), arguments.weights.resolve()
    record = record_of(arguments.device)
    set_environment(work)
    for dataset in arguments.datasets:
        prepare(dataset, arguments.data, work)
    wanted = [
        (name, dataset, seed)
        for seed in arguments.seeds
        for name in arguments.runs
        for dataset in arguments.datasets
        if key_of(name, dataset, seed) not in recorded(record)
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        common = (arguments.device, weights, record)
        for done in [pool.submit(run, work, *w, *common) for w in wanted]:
            done.result()


def parser_of(doc: str) -> argparse.ArgumentParser:
    """Make the command line that scripts of trainings share: work folder, seeds, data, weights."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    return parser


def record_of(device: str) -> Path:
    """Name the record of a device's runs."""
    return RECORD if device == "cpu" else RECORD.with_name(f"quality_{device}.json")


def set_environment(work: Path) -> None:
    """Point nnU-Net, and the commands that are started from here, below the work folder."""
    for name in ("raw", "preprocessed"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
        (work / name).mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_extTrainer"] = str(ROOT / "benchmarks" / "stock_trainer")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_DYNAMIC": "FALSE"}


def prepare(dataset: int, data: Path, work: Path) -> None:
    """Copy, plan and preprocess a data set, and give it its split."""
    name = DATASETS[dataset]
    folder = work / "preprocessed" / name
    if (folder / "prepared").is_file():
        return
    shutil.copytree(data / name, work / "raw" / name, dirs_exist_ok=True)
    command = ["nnUNetv2_plan_and_preprocess", "-d", str(dataset), "-c", "2d", "-np", "2"]
    subprocess.run(command, check=True)
    shutil.copyfile(data / name / "splits_final.json", folder / "splits_final.json")
    (folder / "prepared").touch()


def run(
    work: Path, name: str, dataset: int, seed: int, device: str, weights: Path, record: Path
) -> None:
    """Train and validate one run, its output into a log beside the results, and record it."""
    key = key_of(name, dataset, seed)
    if name == "stock":
        plans, command = "", ["nnUNetv2_train", str(dataset), "2d", "0", "-tr", STOCK]
    else:
        plans, config = f"_{name}", work / "configs" / str(seed) / f"{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(config_of(name, weights, seed)))
        command = ["nnUNetv2_train_vit", str(dataset), "2d", "0", "--config", str(config)]
    results = work / f"results_{seed}"
    print(f"{key} ...", flush=True)
    with Path(work, f"{key}.log").open("w") as stream:
        done = subprocess.run(
            [*command, "-device", device],
            env=os.environ
            | {"nnUNet_results": str(results), "QUALITY_SEED": str(seed)}
            | {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"},
            stdout=stream,
            stderr=stream,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{key} failed: see {stream.name}")
    trainer = STOCK if name == "stock" else OURS
    fold = results / DATASETS[dataset] / f"{trainer}__nnUNetPlans{plans}__2d" / "fold_0"
    scores = scores_of(fold, work / "preprocessed" / DATASETS[dataset])
    write_record(key, scores | {"device": device}, record)


def config_of(name: str, weights: Path, seed: int) -> dict[str, Any]:
    """Return the config of a run of ours: its head, its way of tuning, the common recipe."""
    head, tune = name.rsplit("_", 1)
    tune, *variants = tune.split("-")
    path, options = HEADS[head]
    model = {"model_path": path, "backbone": "dinov2", "backbone_size": "small", "decoder": options}
    for variant in variants:
        model |= VARIANTS[variant]
    train = TRAIN | {"seed": seed}
    if tune == "scratch":
        return {"model": {**model, "pretrained": False, "tune": "full"}, "train": train}
    return {"model": {**model, "checkpoint_path": str(weights), "tune": tune}, "train": train}


def variant_of(name: str, *, patch_size: int | None, last_tap: bool) -> str:
    """Name the run with patches of another size (``None``: the backbone's own), or one tap."""
    return f"{name}{f'-p{patch_size}' if patch_size else ''}{'-last' if last_tap else ''}"


def scores_of(fold: Path, preprocessed: Path) -> dict[str, Any]:
    """Return what a finished run reached."""
    from surfaces import surface_scores  # of a package that those who read the record do not need

    validation = fold / "validation"
    summary = json.loads((validation / "summary.json").read_text())
    log = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    curve = [round(float(value), 4) for value in log["logging"]["mean_fg_dice"]]
    surface_dice, hd95 = surface_scores(validation, preprocessed / "gt_segmentations")
    return {
        "dice": round(summary["foreground_mean"]["Dice"], 4),
        "pooled_dice": round(mean(pooled_dice(of) for of in summary["mean"].values()), 4),
        "surface_dice": round(surface_dice, 4),
        "hd95": round(hd95, 2),
        "curve": curve,
    }


def pooled_dice(counts: dict[str, float]) -> float:
    """Return a class's Dice over the pixels of all cases, from their mean counts."""
    both = 2 * counts["TP"]
    return both / (both + counts["FP"] + counts["FN"])


def key_of(name: str, dataset: int, seed: int) -> str:
    """Name a run in the record."""
    return f"{name}_{dataset}_{seed}"


def recorded(file: Path) -> dict[str, Any]:
    """Read a record."""
    return json.loads(file.read_text()) if file.is_file() else {}


def write_record(key: str, scores: dict[str, Any], file: Path) -> None:
    """Add a run to a record, one line each."""
    with _recording:
        file.parent.mkdir(exist_ok=True)
        record = dict(sorted((recorded(file) | {key: scores}).items()))
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{key}: {scores}", flush=True)


if __name__ == "__main__":
    main()
