"""On macOS and Windows: every module is imported and a CPU training runs, without Linux's calls.

They are simulated (see another_system.py), but for the training in processes that are forked from
this one, where torch and nnU-Net are there already.
"""

import json
import multiprocessing
import sys
import traceback
from pathlib import Path

import another_system
import pytest

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and hides what Linux has")


def elsewhere(work, *arguments):
    """Do some work in a process that looks like Windows, and return what it returns."""
    context = multiprocessing.get_context("fork")
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_disguised, args=(answer, work, arguments))
    process.start()
    answer.close()
    try:
        value, error = answers.recv()
    finally:
        process.join()
    assert error is None, error
    return value


def _disguised(answer, work, arguments):
    try:
        another_system.disguise()
        answer.send((work(*arguments), None))
    except BaseException:
        answer.send((None, traceback.format_exc()))


def test_the_disguise_hides_what_linux_alone_has():
    assert elsewhere(_look) == ["nt", "win32", False, False, "no fcntl", "no /proc", "no prctl"]


def _look():
    import ctypes
    import os
    import signal
    import sys

    said = [os.name, sys.platform, hasattr(os, "fork"), hasattr(signal, "SIGUSR1")]
    try:
        import fcntl
    except ImportError:
        fcntl = "no fcntl"
    try:
        Path("/proc/self/status").read_text()
        proc = "/proc"
    except FileNotFoundError:
        proc = "no /proc"
    try:
        prctl = ctypes.CDLL(None).prctl
    except AttributeError:
        prctl = "no prctl"
    return [*said, fcntl, proc, prctl]


def test_every_module_is_imported():
    here = another_system.import_everything()  # what they import from others too, before the fork
    there = elsewhere(another_system.import_everything)
    assert there == here
    assert "nnunet_vit_trainer.training.ending.processes" in there
    assert "vit_backbone.weights.files" in there


def test_files_are_written_and_results_claimed(tmp_path):
    assert elsewhere(_write_and_claim, tmp_path) == ["whole"]
    assert (tmp_path / "file").read_text() == "whole"
    assert json.loads((tmp_path / "results" / "plans.json").read_text()) == {"vit": {}}


def _write_and_claim(folder):
    from nnunet_vit_trainer.checkpoints.files import written_whole
    from nnunet_vit_trainer.launch.claim import claim_results

    with written_whole(folder / "file") as unfinished:
        unfinished.write_text("whole")
    with claim_results(folder / "results", {"vit": {}}):
        pass
    return [(folder / "file").read_text()]


@pytest.mark.integration
def test_a_training_on_the_cpu_runs(preprocessed, run, tmp_path):
    config = tmp_path / "elsewhere.yaml"
    config.write_text(
        "model: {model_path: linear, backbone: test_vit, pretrained: false}\n"
        "train: {num_epochs: 2, save_every: 1, num_iterations_per_epoch: 2, "
        "num_val_iterations_per_epoch: 1, batch_size: 2, patch_size: [48, 48]}\n"
    )
    arguments = [DATASET, "2d", 0, "--config", config, "-device", "cpu"]
    paths = preprocessed | {"nnUNet_results": str(tmp_path / "results")}
    assert "Results:" in run("python", another_system.__file__, *arguments, **paths)
    fold = tmp_path / "results" / DATASET
    fold /= f"{DEFAULT_TRAINER}__nnUNetPlans_elsewhere__2d/fold_0"
    assert (fold / "checkpoint_final.pth").is_file()
    assert (fold / "validation" / "summary.json").is_file()
    assert not [file.name for file in fold.rglob("*.tmp")]
