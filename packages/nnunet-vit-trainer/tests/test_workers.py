"""The process that trains tells what became of its data workers, and never waits for ever."""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest
import torch
from a_loader import CannotBeSent, Loader

from nnunet_vit_trainer.training.seeding import NNUNET, WORKERS
from nnunet_vit_trainer.training.shortage import workers as watching
from nnunet_vit_trainer.training.shortage.workers import shared, watched_data_workers
from vit_backbone import UserError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that start at once"),
    # Python 3.12 warns of forks beside threads, which nnU-Net does.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
KILLS = 50
NOTICED = 30  # seconds, on a machine that does other work too


def start(loader, processes=2, pin_memory=False):
    """Start workers as nnU-Net does."""
    start = getattr(NNUNET, WORKERS)
    return start(
        data_loader=loader,
        transform=None,
        num_processes=processes,
        num_cached=3,
        seeds=None,
        pin_memory=pin_memory,
        wait_time=0.002,
    )


@contextlib.contextmanager
def started(*loaders, **options):
    with watched_data_workers():
        group = [start(loader, **options) for loader in loaders]
        for workers in group:
            workers._start()
    try:
        yield group
    finally:
        for workers in group:
            workers._finish()


def kill_one(workers, number=signal.SIGKILL):
    os.kill(workers._processes[0].pid, number)


def take_until_told(workers):
    """Take batches until an error comes, and return it with the seconds that it took."""
    start = time.monotonic()
    try:
        while time.monotonic() - start < 2 * NOTICED:
            next(workers)
    except UserError as error:
        return str(error), time.monotonic() - start
    raise AssertionError("nobody told it")


def await_full_queue(workers):
    while workers.results_loop_queue.qsize() < workers.num_cached:
        time.sleep(0.01)
    time.sleep(0.1)  # one of them is in the midst of sending now


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_a_killed_worker_is_told_in_one_line_and_nobody_is_left(kind, capfd):
    """One that was sending an array leaves half of it in the pipe: its reader waits for ever."""
    with started(Loader(kind=kind), processes=1) as (workers,):
        next(workers)
        await_full_queue(workers)
        others = [process.pid for process in workers._processes]
        kill_one(workers)
        said, seconds = take_until_told(workers)
    assert "was ended by SIGKILL, as the system does when memory runs out; free memory" in said
    assert "nnUNet_n_proc_DA" in said
    assert seconds < NOTICED
    assert not {child.pid for child in multiprocessing.active_children()} & {*others}
    assert capfd.readouterr().err == ""


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_workers_that_are_killed_at_any_moment_are_told_every_time(kind, capfd):
    chance, worst = random.Random(0), 0.0
    for _ in range(KILLS):
        with started(Loader(kind=kind)) as (workers,):
            next(workers)
            time.sleep(chance.random() / 4)
            os.kill(chance.choice(workers._processes).pid, signal.SIGKILL)
            worst = max(worst, take_until_told(workers)[1])
        assert not multiprocessing.active_children()
    assert worst < NOTICED
    assert capfd.readouterr().err == ""
    print(f"{KILLS} kills, told after {worst:.1f} s at the most")  # noqa: T201


def test_a_killed_worker_of_the_validation_is_told_at_the_next_batch_of_the_training():
    with started(Loader(), Loader()) as (training, validation):
        next(training)
        next(validation)
        kill_one(validation, signal.SIGTERM)
        said, _ = take_until_told(training)
    assert "was ended by SIGTERM; free memory" in said


def test_a_lock_that_a_killed_worker_held_stops_nobody():
    """Here that of the event by which workers are told to end; each looks at it all the time."""
    with started(Loader()) as (workers,):
        next(workers)
        lock = workers.abort_event._cond._lock
        assert lock.acquire(timeout=NOTICED)
        try:
            kill_one(workers)
            _, seconds = take_until_told(workers)
            assert seconds < NOTICED
            finishing = threading.Thread(target=workers._finish, daemon=True)
            finishing.start()
            finishing.join(NOTICED)
            assert not finishing.is_alive()
        finally:
            lock.release()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.b2nd"), FileNotFoundError, "a.b2nd"),
        (UserError("mend it"), UserError, "mend it"),
        (KeyError("a bug"), RuntimeError, r"Traceback[^!]*__next__[^!]*KeyError: 'a bug'"),
        (FileNotFoundError("no number"), RuntimeError, "FileNotFoundError: no number"),
        (CannotBeSent, RuntimeError, "CannotBeSent: of a kind"),
    ],
)
def test_a_workers_error_reaches_who_trains_and_is_not_printed(error, kind, said, capfd):
    with (
        started(Loader(error=error)) as (workers,),
        pytest.raises(kind, match=f"(?s){said}"),
    ):
        next(workers)
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_thread_that_hands_batches_on_is_raised(monkeypatch, capfd):
    def pin(*_):
        raise RuntimeError("CUDA error: cannot pin")

    monkeypatch.setattr(watching.augmenter, "pin_memory_of_all_eligible_items_in_dict", pin)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    with (
        started(Loader(), pin_memory=True) as (workers,),
        pytest.raises(RuntimeError, match="cannot pin"),
    ):
        next(workers)
    assert capfd.readouterr().err == ""


def test_shared_memory_that_is_full_is_told(monkeypatch):
    """Sending would fail in a thread, time and again, and the process that trains would wait."""

    def full(_):
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with (
        started(Loader()) as (workers,),
        pytest.raises(RuntimeError, match="No space left on device"),
    ):
        next(workers)


def test_all_tensors_of_a_batch_are_shared_and_nothing_else_changes():
    batch = {"data": torch.arange(3), "target": [torch.ones(2)], "keys": ["a", 1]}
    sent = shared(batch)
    assert sent["data"].is_shared()
    assert sent["target"][0].is_shared()
    assert sent["data"].tolist() == [0, 1, 2]
    assert sent["keys"] == ["a", 1]


def test_workers_that_go_on_are_ended_as_nnunet_does():
    before = threading.active_count()
    with started(Loader(), Loader()) as group:
        taken = [next(workers)["data"].shape for workers in group for _ in range(20)]
    assert set(taken) == {(2**18,)}
    assert not multiprocessing.active_children()
    assert threading.active_count() == before


def test_where_the_start_fails_the_workers_end_and_nnunet_is_left_as_it_was():
    plain = getattr(NNUNET, WORKERS)
    before = watching.augmenter.results_loop

    def begin():
        with watched_data_workers():
            next(start(Loader()))
            raise OSError("of the second loader")

    with pytest.raises(OSError, match="second"):
        begin()
    assert getattr(NNUNET, WORKERS) is plain
    assert watching.augmenter.results_loop is before
    assert not multiprocessing.active_children()
