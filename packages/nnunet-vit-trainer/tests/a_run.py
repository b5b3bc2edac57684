"""Trainings that meet trouble, each in a process of its own: for the torture tests.

The processes are forked by a server that has imported everything once.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
import warnings
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_vit_trainer.commands import train as command
from nnunet_vit_trainer.training import trainer as trainers
from nnunet_vit_trainer.training.oversight import validation
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
EPOCH = 2  # when it happens


def server():
    """Return a context of multiprocessing whose processes have imported this already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11's server does not get its parent's sys.path.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("nnUNet_def_n_proc", "1")  # which nnU-Net reads when it is imported
        forkserver.ensure_running()
    return context


def train(arguments, environment, folder, trouble, parameter=None):
    """Train as the command does; what it prints lies in the folder, with the time it was ready."""
    multiprocessing.set_start_method(None, force=True)  # a spawned process has its parent's
    os.setpgid(0, 0)  # whoever it leaves behind is known by the group
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # Dice of a class that is not there
    os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning"
    if trouble not in ("none", "long_life"):
        LocalLogger.plot_progress_png = lambda *_: None  # it takes seconds
    globals()[trouble](folder, parameter)
    sys.argv = ["nnUNetv2_train_vit", *arguments]
    command.train()


def none(folder, _):
    """Let all go well."""


def at_epoch(do):
    """Do something at the start of an epoch."""
    start = nnUNetTrainer_vit.on_train_epoch_start

    def start_and_do(trainer):
        start(trainer)
        if trainer.current_epoch == EPOCH:
            do(trainer)

    nnUNetTrainer_vit.on_train_epoch_start = start_and_do


def happened(folder):
    (folder / "happened").write_text(str(time.time()))


def kill(folder, process):
    """Kill a process, and wait until it is dead; nobody has asked for it yet."""
    os.kill(process.pid, signal.SIGKILL)
    while process.pid in group_of(os.getpgid(0)):
        time.sleep(0.01)
    happened(folder)


def full_disk(folder, size):
    """Refuse files of more than a size, in the midst of their write."""

    def refuse(_):
        happened(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    at_epoch(refuse)


def data_gone(folder, _):
    def remove(trainer):
        happened(folder)
        shutil.rmtree(trainer.preprocessed_dataset_folder)

    at_epoch(remove)


def data_gone_in_validation(folder, _):
    validate = nnUNetTrainer_vit.perform_actual_validation

    def remove_and_validate(trainer, *rest):
        happened(folder)
        next(Path(trainer.preprocessed_dataset_folder).glob("*_seg.b2nd")).unlink()
        for file in Path(trainer.preprocessed_dataset_folder).glob("*.pkl"):
            file.unlink()
        validate(trainer, *rest)

    nnUNetTrainer_vit.perform_actual_validation = remove_and_validate


def worker_killed(folder, which):
    def kill_one(trainer):
        loader = trainer.dataloader_train if which == "training" else trainer.dataloader_val
        kill(folder, loader._processes[0])

    at_epoch(kill_one)


def export_killed(folder, _):
    class Killed(validation.WatchedPool):
        def starmap_async(self, *given):
            result = super().starmap_async(*given)
            if not (folder / "happened").exists():
                kill(folder, self.processes[0])
            return result

    validation.WatchedPool = Killed


def killed_in_validation(folder, number):
    class Kills(validation.WatchedPool):
        def starmap_async(self, *given):
            happened(folder)
            os.kill(os.getpid(), number)
            return super().starmap_async(*given)

    validation.WatchedPool = Kills


def full_memory(folder, place):
    def fail(*_, **__):
        happened(folder)
        raise FULL

    def lose(trainer):
        start(trainer)
        trainer.loss = fail

    if place == "build":
        nnUNetTrainer_vit.configure_optimizers = fail
    elif place == "step":
        at_epoch(lambda _: setattr(trainers, "training_step", fail))
    elif place == "online":
        start = nnUNetTrainer_vit.on_validation_epoch_start
        nnUNetTrainer_vit.on_validation_epoch_start = lose
    else:
        nnUNetPredictor.predict_sliding_window_return_logits = fail


def measured(folder, _):
    """Write down after each epoch what the process and its data workers hold."""
    end = nnUNetTrainer_vit.on_epoch_end

    def end_and_measure(trainer):
        end(trainer)
        with (folder / "figures").open("a") as file:
            file.write(json.dumps(figures()) + "\n")

    nnUNetTrainer_vit.on_epoch_end = end_and_measure


def long_life(folder, config):
    """Train twice in this process, and measure it: the second time with another config."""
    measured(folder, None)
    once = command.train

    def twice():
        once()
        sys.argv[sys.argv.index("--config") + 1] = config
        once()

    command.train = twice


def figures():
    """Return what this process and its children hold: MiB of memory, and numbers."""
    children = children_of(os.getpid())
    return {
        "memory": memory_of(os.getpid()),
        "files": entries("/proc/self/fd"),
        "threads": entries("/proc/self/task"),
        "Python's threads": threading.active_count(),
        "children": len(children),
        "children's memory": sum(map(memory_of, children)),
        "children's files": sum(entries(f"/proc/{pid}/fd") for pid in children),
    }


def entries(folder):
    return sum(1 for _ in Path(folder).iterdir())


def children_of(pid):
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):
            found += map(int, file.read_text().split())
    return found


def memory_of(pid):
    """Return the memory that is a process's own, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(own.split()[1]) / 1024


def group_of(pid):
    """List the processes that run in a process's group, but for zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            state, _, group = folder.joinpath("stat").read_text().rsplit(")", 1)[1].split()[:3]
            if int(group) == pid and state != "Z":
                found.append(int(folder.name))
    return found
