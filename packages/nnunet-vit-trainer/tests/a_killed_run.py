"""A run of the real trainer in a process that is forked from a warm one, to be killed.

`Runs` starts them; `train` is what each does. A journal, which a kill does not touch, says what
was begun and what was saved.
"""

import io
import multiprocessing
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER

WARM = ["nnunet_vit_trainer.training.trainer", "nnunet_vit_trainer.launch.fold", "timm", "peft"]
PIECES, PAUSE = 10, 0.03


def config_of(folder, name, **train):
    """Write a config of a tiny network whose epochs take a moment, with a checkpoint after each."""
    recipe = {
        "num_epochs": 1_000_000,
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "save_every": 1,
        "batch_size": 2,
        "patch_size": [32, 32],
    }
    content = {
        "model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False},
        "train": recipe | train,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


class Runs:
    """Starts runs below a results folder of their own: forks of a process that has all imports."""

    def __init__(self, folder, environment):
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(WARM)
        self.folder = folder
        self.environment = environment | {"nnUNet_results": str(folder / "results")}
        (folder / "results").mkdir()
        first = self.context.Process(target=time.sleep, args=(0,))  # takes as long as the imports
        first.start()
        first.join()

    def start(self, config, fold=0, workers=2, slow=True):
        environment = self.environment | {"nnUNet_n_proc_DA": str(workers)}
        given = (config, fold, environment, self.journal(fold), slow)
        process = self.context.Process(target=train, args=given)
        process.start()
        return process

    def journal(self, fold):
        return self.folder / f"journal_{fold}"

    def said(self, fold=0):
        """Return the journal: lists of words."""
        file = self.journal(fold)
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def model(self, config):
        folder = f"{DEFAULT_TRAINER}__nnUNetPlans_{config.stem}__2d"
        return self.folder / "results" / DATASET / folder


def train(config, fold, environment, journal, slow):
    multiprocessing.set_start_method(None, force=True)  # nnU-Net's data workers are forks, as ever
    os.environ |= environment
    output = journal.with_name(f"output_{fold}").open("a")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)

    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_vit_trainer.launch.run import run_training_vit
    from nnunet_vit_trainer.training import from_plans, trainer

    torch.set_num_threads(1)
    note_what_happens(journal, from_plans, trainer.nnUNetTrainer_vit)
    if slow:
        slow_the_disk(torch)
    nnUNetTrainer.perform_actual_validation = lambda *_: None
    nnUNetTrainer.plot_network_architecture = lambda _: None
    run_training_vit(DATASET, "2d", fold, config, device="cpu", continue_training=True)
    sys.stdout.flush()


def note_what_happens(journal, from_plans, trainer):
    begin, write = trainer.on_epoch_start, from_plans.write_atomically
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words):
        os.write(file, (" ".join(map(str, words)) + "\n").encode())

    def begin_and_note(self):
        note("epoch", self.current_epoch, os.getpid())
        begin(self)

    def write_and_note(content, path):
        write(content, path)
        note("saved", content["current_epoch"], path.name)

    trainer.on_epoch_start = begin_and_note
    from_plans.write_atomically = write_and_note


def slow_the_disk(torch):
    """Let a write take long enough to be killed in the middle of it."""
    save, flush = torch.save, os.fsync

    def save_slowly(content, file):
        buffer = io.BytesIO()
        save(content, buffer)
        whole = buffer.getvalue()
        size = len(whole) // PIECES + 1
        with Path(file).open("wb") as out:
            for start in range(0, len(whole), size):
                out.write(whole[start : start + size])
                out.flush()
                time.sleep(PAUSE)

    def flush_slowly(number):
        time.sleep(PAUSE)
        flush(number)

    torch.save, os.fsync = save_slowly, flush_slowly
