"""Whole trainings that go short of disk, data, workers or memory: one line, exit code 2, no hang.

Each is a process of its own, as the command is. None may leave a process or half a file behind.
"""

import signal
from pathlib import Path

import pytest
from a_torture import Run

pytest.importorskip("resource", reason="needs Linux")
pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("default")]

NOTICED = 30  # seconds; 10 more, to end


@pytest.fixture
def run(preprocessed, tmp_path):
    return Run(preprocessed, tmp_path)


def test_a_disk_that_is_full_keeps_the_checkpoint_before_and_the_run_goes_on(run):
    """Checkpoints are of some MB; the log and progress.png are smaller than what is allowed."""
    said = run.fails("full_disk", 300_000)
    assert "checkpoint_latest.pth: File too large" in said
    assert "continue with --c" in said
    assert run.epochs("latest") == 2
    code, said = run.train("none", None, "--c")
    assert (code, said) == (0, [])
    assert run.epochs("final") == 4
    assert "Epoch 2" in (run.folder / "out").read_text()
    assert (run.fold / "validation" / "summary.json").is_file()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_data_that_are_removed_are_told(workers, run):
    said = run.fails("data_gone", nnUNet_n_proc_DA=workers)
    assert "nnUNetPlans_2d: No such file or directory; put the preprocessed data back" in said
    assert run.epochs("latest") >= 2  # batches that are there already are taken
    assert run.noticed < NOTICED + 10


def test_data_that_are_removed_before_the_final_validation_are_told(run):
    assert "10 of 10 cases of" in run.fails("data_gone_in_validation")
    assert run.epochs("final") == 4
    assert not (run.fold / "validation" / "summary.json").exists()


@pytest.mark.parametrize("which", ["training", "validation"])
def test_a_data_worker_that_is_killed_is_told(which, run):
    said = run.fails("worker_killed", which)
    assert "a data worker (process" in said
    assert "was ended by SIGKILL, as the system does when memory runs out" in said
    assert run.epochs("latest") == 2
    assert run.noticed < NOTICED + 10


def test_a_process_of_the_final_validation_that_is_killed_is_told(run):
    """nnU-Net would wait for ever for the masks that it was to write."""
    said = run.fails("export_killed")
    assert "a process of the validation (process" in said
    assert "validate with --val" in said
    assert run.noticed < NOTICED + 10
    assert not (run.fold / "validation" / "summary.json").exists()
    code, said = run.train("none", None, "--val")
    assert (code, said) == (0, [])
    assert (run.fold / "validation" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("build", "the network does not fit the memory that there is (cpu)"),
        ("step", "a training step of train.batch_size 2 and train.patch_size [32, 32] does not"),
        ("online", "validating a batch of train.batch_size 2"),
        ("predict", "predicting a case of the final validation does not fit"),
    ],
)
def test_a_full_memory_is_told(place, said, run):
    assert said in run.fails("full_memory", place)
    assert not (run.fold / "validation" / "summary.json").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_trainer_that_is_ended_in_its_final_validation_leaves_nobody(number, run):
    code, _ = run.train("killed_in_validation", number)
    assert code == (143 if number == signal.SIGTERM else -number)
    assert Path(run.fold, "checkpoint_final.pth").is_file()
    assert not (run.fold / "validation" / "summary.json").exists()
