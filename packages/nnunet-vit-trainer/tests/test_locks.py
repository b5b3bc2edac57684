"""One training of a fold at a time, whoever starts the other; the lock ends with its owner."""

import contextlib
import errno
import os
import socket
import subprocess
import sys

import pytest
from a_start import config, make_home, results_of, start, train_nothing

from nnunet_vit_trainer.launch import locks
from nnunet_vit_trainer.launch.locks import hold_fold
from vit_backbone import UserError

# The owner forks, as nnU-Net does its data workers; the child goes on a while after its death.
OWNER = """
import os, sys, time
from pathlib import Path
from nnunet_vit_trainer.launch.locks import hold_fold
with hold_fold(Path(sys.argv[1])):
    worker = os.fork()
    if worker == 0:
        time.sleep(3600)
    print(worker, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no such locks")


@contextlib.contextmanager
def held(folder):
    """Another process holds a fold, and has a worker."""
    owner = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    worker = 0
    try:
        worker = int(owner.stdout.readline())
        yield owner, worker
    finally:
        owner.kill()
        if worker:
            os.kill(worker, 9)
        owner.communicate()


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    return tmp_path_factory.mktemp("model") / "fold_0"


def test_a_second_training_of_a_fold_is_refused_until_its_owner_is_dead(fold, is_alive):
    with held(fold) as (owner, worker):
        said = rf"fold_0 of .* by process {owner.pid} on {socket.gethostname()}, since 20.*; wait"
        for _ in range(2):  # looking takes nothing away
            with pytest.raises(UserError, match=said), hold_fold(fold):
                pass
        with hold_fold(fold.with_name("fold_1")):
            pass
        owner.kill()
        owner.wait()
        assert is_alive(worker)
        with hold_fold(fold):
            assert is_alive(worker)


def test_what_killed_runs_left_half_written_goes_with_the_next_start(tmp_path):
    left = [
        "checkpoint_best.pth.0123456789ab-1-2-01234567.tmp",  # of another host, just now
        f"checkpoint_latest.pth.{'0' * 32}.tmp",  # of 0.1.0
    ]
    kept = ["mine.tmp", "checkpoint_best.pth"]
    for name in left + kept:
        (tmp_path / name).touch()
    with hold_fold(tmp_path):
        assert {file.name for file in tmp_path.iterdir()} == {*kept, locks.LOCK}


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch):
    """What another host may be writing there just now stays."""
    unfinished = tmp_path / "checkpoint_best.pth.0123456789ab-1-2-01234567.tmp"
    unfinished.touch()

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    with hold_fold(tmp_path):
        assert unfinished.exists()
    monkeypatch.setattr(locks, "fcntl", None)
    with hold_fold(tmp_path):
        assert unfinished.exists()


def test_a_start_of_a_fold_under_way_is_refused_and_other_folds_are_not(
    tmp_path, monkeypatch, is_alive
):
    home = make_home(tmp_path, monkeypatch)
    trained = train_nothing(monkeypatch)
    with held(results_of(home) / "fold_0") as (owner, _):
        for options in ({}, {"continue_training": True}):
            with pytest.raises(UserError, match=f"validated by process {owner.pid} on "):
                start(home, **options)
        start(home, fold=1)
        start(home, fold="all")
    assert len(trained) == 2
    start(home)
    assert len(trained) == 3


def test_a_validation_is_refused_too(tmp_path, monkeypatch):
    """It writes into the fold."""
    home = make_home(tmp_path, monkeypatch)
    trained = train_nothing(monkeypatch)
    file = config(home)
    start(home, file=file)
    (results_of(home) / "fold_0" / "checkpoint_final.pth").touch()
    start(home, file=file, only_run_validation=True)
    said = pytest.raises(UserError, match="is being trained or validated by process")
    with held(results_of(home) / "fold_0"), said:
        start(home, file=file, only_run_validation=True)
    assert len(trained) == 2


def test_a_disk_that_takes_no_lock_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locks.os, "write", full)
    with (
        pytest.raises(UserError, match=r"fold_0 cannot be written: No space left"),
        hold_fold(tmp_path / "fold_0"),
    ):
        pytest.fail("it is held")
