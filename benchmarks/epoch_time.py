"""Say where the time of an epoch goes, and that of an augmented sample.

    uv run --with surface-distance python benchmarks/epoch_time.py WORK_FOLDER
        [--run segformer_pyramid_shortcut_stem_lora] [--dataset 102] [--workers 0 1 2]
        [--data FOLDER] [--weights FILE]

Trains three epochs of 25 + 10 steps with each number of data workers, in a process of its own, and
prints seconds of the last two, per epoch: what the steps took, what the trainer waited for data,
what nnU-Net's and our work at the epochs' ends took (the log, progress.png, checkpoints), and
everything else. `pure` is the median step on a batch that is there already, without workers beside
it, times the number of steps. With --workers none the transforms of nnU-Net's augmentation are
timed instead, in one thread, in milliseconds per sample. WORK_FOLDER is quality.py's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from quality import DATASETS, ROOT, TRAIN, config_of, prepare, set_environment

EPOCHS, PURE_STEPS, SAMPLES = 3, 10, 300
RECOMMENDED = "segformer_pyramid_shortcut_stem_lora"


def main() -> None:
    """Measure with each number of workers, or the augmentation, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", default=RECOMMENDED)
    parser.add_argument("--dataset", type=int, default=102)
    parser.add_argument("--workers", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT.parent / "shared/weights/vit_small_patch14_dinov2_layout.fp16.safetensors",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    set_environment(work)
    prepare(arguments.dataset, arguments.data, work)
    if arguments.here:
        measure(work, arguments)
        return
    for workers in arguments.workers:
        number = "0" if workers == "none" else workers
        given = [*sys.argv[1:], "--here", "--workers", workers]
        subprocess.run(
            [sys.executable, __file__, *given],
            env=os.environ | {"nnUNet_n_proc_DA": number, "nnUNet_results": str(work / "times")},
            check=True,
        )


def measure(work: Path, arguments: argparse.Namespace) -> None:
    """Train, and print a table."""
    from nnunet_vit_trainer.launch.run import run_training_vit
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

    config = work / "configs" / f"times_{arguments.run}.yaml"
    config.parent.mkdir(exist_ok=True)
    content = config_of(arguments.run, arguments.weights.resolve(), 0)
    content["train"] = TRAIN | {"num_epochs": EPOCHS, "checkpoint": "full"}
    config.write_text(yaml.safe_dump(content))
    if arguments.workers == ["none"]:
        nnUNetTrainer_vit.on_train_start = print_augmentation
    else:
        watch = Stopwatch()
        watch.follow(nnUNetTrainer_vit)
        nnUNetTrainer_vit.on_train_end = lambda trainer: watch.report(trainer)
    shutil.rmtree(os.environ["nnUNet_results"], ignore_errors=True)
    run_training_vit(DATASETS[arguments.dataset], "2d", 0, config, device="cpu")


class Stopwatch:
    """The seconds that a trainer's methods took, by epoch."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.starts: list[float] = []
        self.batch: Any = None

    def follow(self, trainer: Any) -> None:
        """Time the methods of the class."""
        for name in ("train_step", "validation_step", "on_epoch_end", "on_train_epoch_end"):
            setattr(trainer, name, self.timed(getattr(trainer, name), name))
        start, loaders = trainer.on_epoch_start, trainer.get_dataloaders

        def on_epoch_start(of: Any) -> None:
            self.starts.append(time.perf_counter())
            start(of)

        def get_dataloaders(of: Any) -> Any:
            return tuple(TimedLoader(loader, self) for loader in loaders(of))

        trainer.on_epoch_start, trainer.get_dataloaders = on_epoch_start, get_dataloaders

    def timed(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the method with a clock around it."""

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = method(*arguments)
            self.seconds[name].append(time.perf_counter() - start)
            return result

        return call

    def report(self, trainer: Any) -> None:
        """Print the table of the last two epochs, and end."""
        wall = (time.perf_counter() - self.starts[1]) / (EPOCHS - 1)
        parts = {
            name: sum(of[len(of) // EPOCHS :]) / (EPOCHS - 1) for name, of in self.seconds.items()
        }
        parts["everything else"] = wall - sum(parts.values())
        pure = self.pure(trainer)
        print(
            f"\nworkers {os.environ['nnUNet_n_proc_DA']}: {wall:.2f} s an epoch, pure {pure:.2f} s"
        )
        print(f"  ratio {wall / pure:.2f}")
        for name, seconds in parts.items():
            print(f"  {name:20} {seconds:7.2f} s")
        sys.stdout.flush()
        os._exit(0)

    def pure(self, trainer: Any) -> float:
        """Return the seconds of an epoch's steps alone, with no workers beside them."""
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if hasattr(loader.loader, "_finish"):
                loader.loader._finish()
        trainer.network.train()
        train = [self.seconds_of(trainer.train_step, self.batch) for _ in range(PURE_STEPS)]
        trainer.network.eval()
        with torch.no_grad():
            held_out = [
                self.seconds_of(trainer.validation_step, self.batch) for _ in range(PURE_STEPS)
            ]
        steps, val_steps = TRAIN["num_iterations_per_epoch"], TRAIN["num_val_iterations_per_epoch"]
        return steps * median(train) + val_steps * median(held_out)

    @staticmethod
    def seconds_of(step: Callable[..., Any], batch: Any) -> float:
        """Return the seconds of one step."""
        start = time.perf_counter()
        step(dict(batch))
        return time.perf_counter() - start


class TimedLoader:
    """A loader, and the seconds that its batches were waited for."""

    def __init__(self, loader: Any, watch: Stopwatch) -> None:
        self.loader, self.watch = loader, watch

    def __next__(self) -> Any:
        start = time.perf_counter()
        self.watch.batch = next(self.loader)
        self.watch.seconds["waiting for data"].append(time.perf_counter() - start)
        return self.watch.batch

    def _finish(self) -> None:
        self.loader._finish()


def print_augmentation(trainer: Any) -> None:
    """Print what each of nnU-Net's transforms takes of a sample, and end."""
    trainer.initialize()
    loader = trainer.get_dataloaders()[0].data_loader
    spent: dict[str, float] = defaultdict(float)
    watch_transforms(loader.transforms, spent)
    start = time.perf_counter()
    for _ in range(SAMPLES // loader.batch_size):
        next(loader)
    count = SAMPLES // loader.batch_size * loader.batch_size
    total = (time.perf_counter() - start) / count
    spent = {name: seconds / count for name, seconds in spent.items()}
    spent["loading, cropping, stacking"] = total - sum(spent.values())
    print(f"\n{total * 1e3:.1f} ms a sample of {trainer.configuration_manager.patch_size}")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:40} {seconds * 1e3:6.2f} ms")
    sys.stdout.flush()
    os._exit(0)


def watch_transforms(composed: Any, spent: dict[str, float]) -> None:
    """Time each transform of a composition, and of those in it."""
    for i, transform in enumerate(composed.transforms):
        if hasattr(transform, "transforms"):
            watch_transforms(transform, spent)
        else:
            composed.transforms[i] = _timed_transform(transform, spent)


def _timed_transform(transform: Any, spent: dict[str, float]) -> Callable[..., Any]:
    inner = getattr(transform, "transform", transform)
    name = type(inner).__name__

    def call(**sample: Any) -> Any:
        start = time.perf_counter()
        sample = transform(**sample)
        spent[name] += time.perf_counter() - start
        return sample

    return call


if __name__ == "__main__":
    main()
