"""SIGKILL at random moments, and in the middle of writing: what is saved stays, and goes on.

The counts of the long one stand in docs/reliability.md; it says them with ``-rP``.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from a_killed_run import Runs, config_of

from nnunet_vit_trainer.demo.data import DATASET

PATIENCE = 900  # seconds, for machines that do other work too
MOMENTS = ("any", "checkpoint", "any", "json")

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


def descendants(pid):
    """Return a process's children and theirs."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *descendants(child)]
    return found


def unfinished_files(runs, config):
    folders = [runs.model(config), runs.model(config) / "fold_0"]
    folders.append(Path(runs.environment["nnUNet_preprocessed"], DATASET))
    return [file for folder in folders for file in folder.glob("*.tmp")]


def wait_for(process, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive(), f"ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process):
    """Kill a run; return its workers."""
    workers = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return workers


def seconds_until_dead(workers, is_alive):
    begin = time.monotonic()
    while any(map(is_alive, workers)):
        assert time.monotonic() - begin < PATIENCE
        time.sleep(0.05)
    return time.monotonic() - begin


def last_saved(said):
    return max((int(words[1]) for words in said if words[0] == "saved"), default=0)


def check_what_is_left(runs, config):
    """Every file can be read, and the checkpoints hold the last epoch that was saved."""
    for file in [*runs.model(config).rglob("*.json"), *runs.model(config).parent.glob("*.json")]:
        if file.name != "debug.json" or file.stat().st_size:
            json.loads(file.read_text())
    held = [
        torch.load(file, weights_only=False)["current_epoch"]
        for file in (runs.model(config) / "fold_0").glob("checkpoint_*.pth")
    ]
    assert max(held, default=0) >= last_saved(runs.said())


def kill_again_and_again(kills, folder, preprocessed, is_alive):
    """Start with --c, kill, look, and so on; then let it come to its end. Return the counts."""
    chance = random.Random(kills)
    runs = Runs(folder, preprocessed)
    config = config_of(folder, "kill")
    longest = None  # a start and some epochs
    counts = dict.fromkeys(MOMENTS, 0)
    counts |= {"left a half file": 0, "before an epoch": 0, "workers": 0, "seconds of workers": 0.0}
    for i in range(kills):
        moment = MOMENTS[i % len(MOMENTS)] if longest else "checkpoint"
        before = runs.said()
        begin = time.monotonic()
        process = runs.start(config)
        own = f"-{process.pid}-"
        if longest is None:
            wait_for(process, lambda: last_saved(runs.said()) >= 3)
            longest = time.monotonic() - begin
        if moment == "any":
            time.sleep(chance.uniform(0, 2 * longest))
        else:
            if moment == "checkpoint":  # of the first, second or third epoch
                epoch = last_saved(before) + chance.randrange(3)
                wait_for(process, lambda epoch=epoch: last_saved(runs.said()) >= epoch)
            name = f"{moment}_" if moment == "checkpoint" else f".{moment}."
            wait_for(
                process,
                lambda own=own, name=name: any(
                    own in file.name and name in file.name
                    for file in unfinished_files(runs, config)
                ),
            )
            time.sleep(chance.uniform(0, 0.3) if moment == "checkpoint" else 0)
        workers = kill(process)
        counts[moment] += 1
        counts["workers"] += len(workers)
        took = seconds_until_dead(workers, is_alive)
        counts["seconds of workers"] = max(counts["seconds of workers"], round(took, 2))
        counts["left a half file"] += any(own in f.name for f in unfinished_files(runs, config))
        check_what_is_left(runs, config)
        news = runs.said()[len(before) :]
        epochs = [int(words[1]) for words in news if words[0] == "epoch"]
        counts["before an epoch"] += not epochs
        if epochs:
            assert epochs[0] >= last_saved(before)
    counts["epochs"] = last_saved(runs.said())
    finish(runs, config)
    return counts


def finish(runs, config):
    """Let the run come to an end that lies two epochs on."""
    epochs = last_saved(runs.said()) + 2
    process = runs.start(config_of(runs.folder, config.stem, num_epochs=epochs), slow=False)
    process.join(PATIENCE)
    assert process.exitcode == 0, (runs.folder / "output_0").read_text()[-3000:]
    fold = runs.model(config) / "fold_0"
    assert torch.load(fold / "checkpoint_final.pth", weights_only=False)["current_epoch"] == epochs
    assert not list(runs.model(config).rglob("*.tmp"))


@pytest.mark.integration
def test_a_run_that_is_killed_four_times_comes_to_its_end(preprocessed, is_alive, tmp_path):
    kill_again_and_again(4, tmp_path, preprocessed, is_alive)


@pytest.mark.torture
def test_a_run_that_is_killed_eighty_times_comes_to_its_end(preprocessed, is_alive, tmp_path):
    counts = kill_again_and_again(80, tmp_path, preprocessed, is_alive)
    sys.stdout.write(f"{counts}\n")
    assert counts["checkpoint"] >= 10
    assert counts["left a half file"] >= 10


@pytest.mark.integration
def test_two_folds_at_once_train_as_each_does_alone(preprocessed, tmp_path):
    """From the same first moment on, in which nnU-Net writes the splits; and one config."""
    recipe = {"num_epochs": 2, "seed": 3}
    results = {}
    for kind, folds in {"together": (0, 1), "alone 0": (0,), "alone 1": (1,)}.items():
        (tmp_path / kind).mkdir()
        runs = Runs(tmp_path / kind, preprocessed)
        config = config_of(tmp_path / kind, "folds", **recipe)
        if kind == "together":
            Path(preprocessed["nnUNet_preprocessed"], DATASET, "splits_final.json").unlink(True)
        started = [runs.start(config, fold, workers=0, slow=False) for fold in folds]
        for fold, process in zip(folds, started, strict=True):
            process.join(PATIENCE)
            said = (runs.folder / f"output_{fold}").read_text()
            assert process.exitcode == 0, said[-3000:]
            final = runs.model(config) / f"fold_{fold}" / "checkpoint_final.pth"
            results[kind, fold] = torch.load(final, weights_only=False)
        assert not unfinished_files(runs, config)
    for fold in (0, 1):
        one, two = results["together", fold], results[f"alone {fold}", fold]
        assert one["logging"]["train_losses"] == pytest.approx(two["logging"]["train_losses"])
        for name, weight in one["network_weights"].items():
            other = two["network_weights"][name]
            assert torch.allclose(weight, other, rtol=0, atol=1e-5), name
