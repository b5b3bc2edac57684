"""The demo's steps, each one real command of nnU-Net's or ours in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nnunet_vit_trainer.launch.request import DEFAULT_TRAINER
from vit_backbone import UserError, shorten
from vit_backbone.heads.finding import is_installed_head

from .config import config_of
from .data import CLASSES, DATASET, write_dataset
from .dice import dice_per_class

CONFIG, HEAD = "demo.yaml", "segformer"
_PICTURES = {"overlay sheet": "overlay.png", "report": "report.html", "features": "features.png"}
_OURS = (
    *("raw", "preprocessed", "results", "predictions", "logs", "cache", CONFIG),
    *_PICTURES.values(),
)
_PLANS = "nnUNetPlans_demo"


class Step(NamedTuple):
    """One command: what the bar calls it, its words, and the seconds it took on two cores."""

    title: str
    command: Sequence[str]
    seconds: float


def run_demo(folder: str | Path, weights: str | Path | None = None) -> float:
    """Run the demo below a folder, report on the terminal, and return the mean foreground Dice.

    Everything is written below the folder. An earlier demo in it, also a killed one, is replaced.

    Args:
        folder: an empty or new folder, or one that holds an earlier demo and nothing else.
        weights: of a pretrained ViT, which LoRA then tunes; ``None``: a tiny ViT from scratch.

    Raises:
        UserError: the head is not installed, the weights are missing or unknown, the folder holds
            other things, or a step failed.
    """
    if not is_installed_head(HEAD):
        raise UserError(
            f"the demo trains the recommended head; uv pip install 'nnunet-vit-trainer[{HEAD}]'"
        )
    config = config_of(None if weights is None else Path(weights))
    folder = Path(folder).resolve()
    _make_room(folder)
    (folder / CONFIG).write_text(config, encoding="utf-8")  # first: the mark of a demo
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Demo in {folder}\nlogs in {folder / 'logs'}")
    data = write_dataset(folder / "raw")
    _run_steps(_steps(folder, data, weights), _environment(folder), folder / "logs", console)
    dice = dice_per_class(data / "labelsTs", folder / "predictions", len(CLASSES))
    mean = sum(dice) / len(dice)
    console.print("\nDice on images that training never saw:")
    for name, value in zip((*CLASSES, "mean"), (*dice, mean), strict=True):
        console.print(f"  {name:<12}{value:.3f}")
    console.print(_told_pictures(folder))
    console.print(_NEXT_WITH_WEIGHTS if weights else _NEXT)
    return mean


def _steps(folder: Path, data: Path, weights: str | Path | None) -> list[Step]:
    dataset_id = DATASET[7:10]
    steps = [
        Step(
            "plan and preprocess",
            f"nnUNetv2_plan_and_preprocess -d {dataset_id} -c 2d -npfp 1 -np 1".split(),
            seconds=20,
        ),
        Step(
            "train LoRA on your ViT" if weights else "train a tiny ViT",
            [
                *f"nnUNetv2_train_vit {dataset_id} 2d 0 -device cpu --config".split(),
                str(folder / CONFIG),
            ],
            seconds=180 if weights else 60,
        ),
        Step(
            "predict with stock nnU-Net",
            [
                *f"nnUNetv2_predict -d {dataset_id} -c 2d -f 0 -tr {DEFAULT_TRAINER}".split(),
                *["-p", _PLANS, "-device", "cpu", "-npp", "0", "-nps", "0"],
                *("-i", str(data / "imagesTs"), "-o", str(folder / "predictions")),
            ],
            seconds=15,
        ),
    ]
    if weights:
        images = sorted((data / "imagesTs").glob("*.png"))[:3]
        drawn = str(folder / _PICTURES["features"])
        model = str(_fold(folder).parent)
        command = ["nnUNetv2_features_vit", *map(str, images), "--results", model, "-o", drawn]
        steps.append(Step("draw the ViT's features", command, seconds=20))
    return steps


def _fold(folder: Path) -> Path:
    return folder / "results" / DATASET / f"{DEFAULT_TRAINER}__{_PLANS}__2d" / "fold_0"


def _told_pictures(folder: Path) -> str:
    """Lay the training's pictures beside the data, and say where they are, or why they are not."""
    lines = ["\nTo look at:"]
    for title, name in _PICTURES.items():
        drawn = _fold(folder) / name
        if drawn.is_file():
            shutil.copy(drawn, folder / name)
        if (folder / name).is_file():
            lines.append(f"  {title:<15}{folder / name}")
        elif name != _PICTURES["features"]:
            lines.append(f"  {title:<15}not drawn; the training's log in {drawn.parent} says why")
    return "\n".join(lines)


def _run_steps(
    steps: list[Step], environment: dict[str, str], logs: Path, console: Console
) -> None:
    with Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=26),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        speed_estimate_period=600,  # epochs are far apart on a busy machine
    ) as progress:
        bar = progress.add_task("", total=sum(step.seconds for step in steps))
        done = 0.0
        for step in steps:
            progress.update(bar, description=step.title)
            log = logs / f"{step.command[0]}.log"
            for fraction in _run(step, environment, log):
                progress.update(bar, completed=done + step.seconds * fraction)
            done += step.seconds
        progress.update(bar, description="done", completed=done)


_NEXT = f"""
Next, LoRA on a real ViT, of DINOv3, DINOv2, RETFound or VisionFM:
  nnUNetv2_demo_vit --weights FILE
On your own data, a folder of images and masks:
  export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
  nnUNetv2_import_images_vit PHOTOS -d 42 -n Mine
  nnUNetv2_plan_and_preprocess -d 42 -c 2d
  nnUNetv2_train_vit 42 2d 0 --config recommended_tiny -device cpu
  nnUNetv2_predict -d 42 -c 2d -f 0 -tr {DEFAULT_TRAINER} \\
    -p nnUNetPlans_recommended_tiny -i IMAGES -o OUTPUT -device cpu
With a GPU and a foundation model, without -device:
  nnUNetv2_configs_vit --write recommended --checkpoint_path FILE
  nnUNetv2_train_vit 42 2d 0 --config recommended.yaml"""
_NEXT_WITH_WEIGHTS = f"""
Next, on your own data, a folder of images and masks:
copy demo.yaml to my.yaml without its section train, and
  export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
  nnUNetv2_import_images_vit PHOTOS -d 42 -n Mine
  nnUNetv2_plan_and_preprocess -d 42 -c 2d
  nnUNetv2_train_vit 42 2d 0 --config my.yaml
  nnUNetv2_predict -d 42 -c 2d -f 0 -tr {DEFAULT_TRAINER} \\
    -p nnUNetPlans_my -i IMAGES -o OUTPUT"""


def _make_room(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder for the demo")
    others = names - {*_OURS} if CONFIG in names else names
    if others := sorted(others) or _of_the_user(folder):
        told = shorten(", ".join(others))
        raise UserError(
            f"{folder} holds other things than an earlier demo ({told}); give a new one"
        )
    for name in names:
        entry = folder / name
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("preprocessed", "results", "logs", "cache"):
        (folder / name).mkdir(parents=True)


def _of_the_user(folder: Path) -> list[str]:
    """List what nnU-Net's folders hold beside the demo's data set and model: somebody's work."""
    ours = {DATASET, _fold(folder).parent.name}
    parts = ("raw", "preprocessed", "results", f"results/{DATASET}")
    found = [entry for part in parts for entry in (folder / part).glob("[!.]*")]
    return sorted(str(e.relative_to(folder)) for e in found if e.name not in ours)


def _environment(folder: Path) -> dict[str, str]:
    """Keep nnU-Net's files and every cache below the folder, and stay off the network."""
    return os.environ | {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "1",
        "MPLCONFIGDIR": str(folder / "cache" / "matplotlib"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "cache" / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _run(step: Step, environment: dict[str, str], log: Path) -> Iterator[float]:
    """Run a command of this environment, its output in a log file, and yield how far it is."""
    program = Path(sys.executable).parent / step.command[0]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(program), *step.command[1:]], env=environment, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                time.sleep(0.5)
                yield _fraction(log, (time.monotonic() - start) / step.seconds)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{step.command[0]} failed: {' '.join(last)} (all of it: {log})")


def _fraction(log: Path, elapsed_share: float) -> float:
    """Say how far a command is: by nnU-Net's epochs where it trains, by the clock elsewhere."""
    text = log.read_text(encoding="utf-8", errors="replace")
    planned = re.search(r"'num_epochs': (\d+)", text)
    if planned is None:
        return min(0.95, elapsed_share)
    done = len(re.findall(r"Epoch time:", text))
    # Imports before and validation after the epochs take about a quarter.
    return 0.1 + 0.75 * done / int(planned.group(1))
