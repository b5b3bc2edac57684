"""Data workers end with their trainer, however that ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER
from nnunet_vit_trainer.training.ending.processes import (
    EndsWithTrainer,
    end_with_parent,
    sigterm_raises,
)

HERE = Path(__file__).parent
PATIENCE = 900  # seconds, for machines that do other work too
CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 0, signal.SIGINT: 130}

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@contextlib.contextmanager
def started(command, **options):
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition, process):
    """Wait for something that a process is to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def all_end(pids, is_alive):
    """Wait for processes to end, and kill those that do not."""
    deadline = time.monotonic() + PATIENCE
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_end_with_a_trainer_that_is(number, method, is_alive, tmp_path):
    """Forks are Linux's default before Python 3.14, forkserver's from there on, spawn macOS'."""
    with started([sys.executable, HERE / "a_trainer.py", method, tmp_path]) as trainer:
        until(lambda: len(list(tmp_path.iterdir())) == 3, trainer)
        workers = [int(file.name) for file in tmp_path.iterdir()]
        assert all(map(is_alive, workers))
        trainer.send_signal(number)
        assert all_end(workers, is_alive)
        code = trainer.wait(PATIENCE)
    assert code == (128 + number if number == signal.SIGTERM else -number)


def test_ranks_end_with_a_launcher_that_is_killed(is_alive, tmp_path):
    code = (
        "import sys, two_ranks; from nnunet_vit_trainer.launch import ranks; "
        "ranks.launch(2, 'cpu', two_ranks.wait_for_ever, sys.argv[1])"
    )
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    with started(
        [sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": path}
    ) as launcher:
        until(lambda: len(list(tmp_path.iterdir())) == 2, launcher)
        launcher.kill()
        assert all_end([int(file.name) for file in tmp_path.iterdir()], is_alive)


def test_without_workers_the_transform_does_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_raises():
        assert EndsWithTrainer()(image=1, segmentation=2) == {"image": 1, "segmentation": 2}
        assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_nobody_started_by_multiprocessing_is_not_watched():
    import threading

    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before


def test_tests_compute_in_one_thread_and_their_processes_too(run):
    """Masks and probabilities of two processes are compared (see the conftest.py of all)."""
    import torch

    assert torch.get_num_threads() == 1
    say = "import os, torch; print(torch.get_num_threads(), os.environ['MKL_DYNAMIC'])"
    assert run("python", "-c", say).split() == ["1", "FALSE"]


def test_a_worker_goes_on_for_a_while_after_the_signals_of_its_whole_group(is_alive, tmp_path):
    with started([sys.executable, HERE / "a_trainer.py", "fork", tmp_path]) as trainer:
        until(lambda: len(list(tmp_path.iterdir())) == 3, trainer)
        workers = [int(file.name) for file in tmp_path.iterdir()]
        for number in (signal.SIGINT, signal.SIGUSR1):
            for worker in workers:
                os.kill(worker, number)
        os.kill(workers[0], signal.SIGTERM)
        until(lambda: not is_alive(workers[0]), trainer)  # a second later, in this test
        assert all(map(is_alive, workers[1:]))


def descendants(pid):
    """Return a process's children and theirs."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *descendants(child)]
    return found


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGKILL, *CODES])
def test_the_training_command_leaves_nobody_behind(number, preprocessed, is_alive, tmp_path):
    """nnU-Net's own workers, which are forked; while it trains.

    They get the signal too, as from a terminal and from a queue system, and are needed yet.
    """
    config = tmp_path / "kill.yaml"
    content = {
        "model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False},
        "train": {
            "num_epochs": 1000,
            "num_iterations_per_epoch": 2,
            "num_val_iterations_per_epoch": 1,
            "batch_size": 2,
            "patch_size": [48, 48],
        },
    }
    config.write_text(yaml.safe_dump(content))
    command = [Path(sys.executable).parent / "nnUNetv2_train_vit", DATASET, "2d", "all"]
    environment = {"nnUNet_results": str(tmp_path / "results"), "nnUNet_n_proc_DA": "2"}
    fold = tmp_path / "results" / DATASET
    fold /= f"{DEFAULT_TRAINER}__nnUNetPlans_kill__2d/fold_all"
    with started(
        [*command, "--config", config, "-device", "cpu"],
        env=os.environ | preprocessed | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as trainer:
        until(lambda: (fold / "checkpoint_best.pth").is_file(), trainer)
        workers = descendants(trainer.pid)
        assert len(workers) >= 3
        if number == signal.SIGKILL:
            trainer.kill()
        else:
            os.killpg(trainer.pid, number)
        assert all_end(workers, is_alive)
        said = trainer.communicate(timeout=PATIENCE)[0]
    assert trainer.returncode == CODES.get(number, -number), said
    told = said.split("Traceback")[1:]
    if number == signal.SIGKILL:  # Python's thread that hands a tensor over to who is gone
        told = [of for of in told if "resource_sharer.py" not in of]
    assert not told, said
    if number != signal.SIGKILL:
        name = signal.Signals(number).name
        assert f"{name}: ends with this step" in said
        assert (
            f"Ended by {name}, what was trained is saved. Go on with\n  nnUNetv2_train_vit" in said
        )
        assert said.endswith(" --c\n")
        assert (fold / "checkpoint_latest.pth").is_file()
    # SIGKILL may come while a checkpoint is written: a later write removes what that leaves.
    assert number == signal.SIGKILL or not list(fold.glob("*.tmp"))
