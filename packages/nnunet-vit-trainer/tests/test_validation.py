"""The final validation leaves a whole summary or none, and a killed process of it is told."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_vit_trainer.training.oversight.validation import (
    EVALUATION,
    Pools,
    WatchedPool,
    validated_whole,
)
from nnunet_vit_trainer.training.seeding import NNUNET
from nnunet_vit_trainer.training.shortage.tiles import PREDICTION, told_tiles
from vit_backbone import UserError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that start at once"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
NOTICED = 30  # seconds, on a machine that does other work too
METRICS = {"mean": {1: {"Dice": 0.5}}, "metric_per_case": [], "foreground_mean": {"Dice": 0.5}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A validation's folder, with the summary of an earlier one; metrics are found at once."""
    monkeypatch.setattr(NNUNET, "compute_metrics_on_folder", lambda *_, **__: METRICS)
    (tmp_path / "summary.json").write_text("of an earlier validation")
    return tmp_path


def summarize(folder):
    return NNUNET.compute_metrics_on_folder("labels", folder, str(folder / "summary.json"), None)


def names(folder):
    return [file.name for file in folder.iterdir()]


def test_a_validation_writes_its_summary(folder):
    with validated_whole(folder):
        assert names(folder) == []
        assert summarize(folder) is METRICS
    assert json.loads((folder / "summary.json").read_text())["mean"] == {"1": {"Dice": 0.5}}
    assert names(folder) == ["summary.json"]


def test_a_summary_says_if_it_is_not_of_the_final_checkpoint(folder):
    for checkpoint, said in (("checkpoint_best.pth",) * 2, ("checkpoint_final.pth", None)):
        with validated_whole(folder, checkpoint=checkpoint):
            summarize(folder)
        assert json.loads((folder / "summary.json").read_text()).get("vit_checkpoint") == said


def test_a_validation_that_fails_leaves_no_summary_and_nnunet_as_it_was(folder):
    before = NNUNET.compute_metrics_on_folder

    def validate():
        with validated_whole(folder):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        validate()
    assert names(folder) == []
    assert NNUNET.compute_metrics_on_folder is before
    assert NNUNET.multiprocessing is EVALUATION.multiprocessing is multiprocessing


def test_a_summary_that_the_disk_refuses_is_not_there(folder, monkeypatch):
    def save(_, file):
        with open(file, "w") as half:  # noqa: PTH123
            half.write("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EVALUATION, "save_summary_json", save)
    with validated_whole(folder), pytest.raises(OSError, match="No space"):
        summarize(folder)
    assert names(folder) == []


def test_one_rank_of_several_removes_the_summary(folder):
    with validated_whole(folder, first=False):
        assert names(folder) == ["summary.json"]


def double(number, wait):
    time.sleep(wait)
    return 2 * number


def error_of(work):
    """Return the error that some work ends with; it must not wait for ever."""
    found = []

    def catch():
        try:
            work()
        except Exception as error:
            found.append(error)

    working = threading.Thread(target=catch, daemon=True)
    working.start()
    working.join(NOTICED)
    assert found, "it waits, or nothing happened"
    return found[0]


def pool(processes=2):
    return Pools(multiprocessing).get_context("fork").Pool(processes)


def test_a_pool_does_what_nnunets_does():
    with pool() as watched:
        results = [watched.starmap_async(double, ((i, 0),)) for i in range(5)]
        assert [result.get() for result in results] == [[0], [2], [4], [6], [8]]
        assert all(result.ready() for result in results)
        assert len(watched._pool) == 2
        assert all(process.is_alive() for process in watched._pool)
        assert watched.starmap(double, [(1, 0), (2, 0)]) == [2, 4]
        with pytest.raises(TypeError):
            watched.starmap(double, [(1,)])
    assert not multiprocessing.active_children()


def test_a_pool_of_threads_ends_too():
    """The integration tests' pools are threads, which end with the pool and cannot be killed."""
    for _ in range(20):
        with WatchedPool(ThreadPool(2)) as watched:
            assert watched.starmap(double, [(1, 0), (2, 0)]) == [2, 4]


@pytest.mark.parametrize("idle", [0, 1])
def test_a_killed_process_of_a_pool_is_told_and_nobody_is_left(idle):
    """A pool starts another one and waits; one that waited for work holds a lock besides."""

    def work_and_kill():
        with pool() as watched:
            watched.starmap(double, [(1, 0), (2, 0)])
            waiting = watched.starmap_async(double, ((1, 3600),))
            time.sleep(1)
            for process in watched.processes[idle:]:
                os.kill(process.pid, signal.SIGKILL)
            waiting.get()

    error = error_of(work_and_kill)
    assert isinstance(error, UserError)
    assert re.search(r"a process of the validation .* SIGKILL.*--val", str(error))
    deadline = time.monotonic() + NOTICED
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()


def test_nnunets_own_look_at_the_pool_tells_it_too():
    from nnunetv2.utilities.file_path_utilities import check_workers_alive_and_busy

    def look():
        with pool() as watched:
            workers = [i for i in watched._pool]
            assert not check_workers_alive_and_busy(watched, workers, [], 2)
            os.kill(watched.processes[0].pid, signal.SIGKILL)
            time.sleep(1)
            check_workers_alive_and_busy(watched, workers, [], 2)

    with pytest.raises(UserError, match="SIGKILL"):
        look()


def test_a_tile_that_does_not_reach_the_device_is_told(monkeypatch):
    """nnU-Net's own thread prints its error, and the predictor waits for its next tile."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.network, predictor.allowed_mirroring_axes = torch.nn.Identity(), None
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=1)
    predictor.configuration_manager = SimpleNamespace(patch_size=[4, 4])
    image = torch.zeros(1, 1, 8, 8)

    def predict():
        with told_tiles():
            return predictor.predict_sliding_window_return_logits(image)

    assert predict().shape == image.shape

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "clone", full)
    assert isinstance(error_of(predict), torch.OutOfMemoryError)
    assert PREDICTION.Thread is threading.Thread
