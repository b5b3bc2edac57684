"""A run that was stopped and continued equals one that was not."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import run_training_vit
from nnunet_vit_trainer.training.step import Outcome
from vit_backbone import UserError

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

CONFIG = {
    # An adapter's dropout, drop path, averaging and the warm-up: whatever could lose its state.
    "model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False},
    "lora": {"lora_dropout": 0.2},
    "train": {
        "num_epochs": 4,
        "num_iterations_per_epoch": 3,
        "num_val_iterations_per_epoch": 1,
        "warmup_epochs": 2,
        "head_first_epochs": 1,
        "drop_path_rate": 0.1,
        "ema": 0.9,
        "accumulate_steps": 2,
        "save_every": 2,
        "batch_size": 2,
        "patch_size": [48, 48],
    },
}


class Stopped(BaseException):
    """Neither nnU-Net nor we catch it: as sudden as a kill."""


def train(config, results, stop_in=None, **options):
    """Train on all cases, or until the online validation of an epoch; without the final one."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(results))
        # It has no part in this, and would start worker processes.
        patch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *args: None)
        if stop_in is not None:
            evaluate = nnUNetTrainer.on_validation_epoch_start

            def stop(trainer):
                if trainer.current_epoch == stop_in:
                    raise Stopped
                evaluate(trainer)

            patch.setattr(nnUNetTrainer, "on_validation_epoch_start", stop)
        return run_training_vit(DATASET, "2d", "all", config, device="cpu", **options)


def seed():
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)


@pytest.fixture(scope="module")
def runs(home, tmp_path_factory):
    """The config, and the folders of a run that was not stopped and of one that was and went on.

    It was stopped after two epochs and a half, when a checkpoint of two epochs lay there.
    """
    config = home / "resumed.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    seed()
    whole = train(config, tmp_path_factory.mktemp("whole"))
    stopped = tmp_path_factory.mktemp("stopped")
    seed()
    with pytest.raises(Stopped):
        train(config, stopped, stop_in=2)
    torch.rand(7)  # a fresh process would be anywhere
    np.random.rand(7)
    return config, whole, train(config, stopped, continue_training=True)


def checkpoint(folder):
    return torch.load(folder / "checkpoint_final.pth", weights_only=False)


def test_weights_optimizer_and_average_are_equal(runs):
    _, whole, resumed = runs
    one, two = checkpoint(whole), checkpoint(resumed)
    assert one["current_epoch"] == two["current_epoch"] == 4
    for name, weight in one["network_weights"].items():
        assert torch.equal(weight, two["network_weights"][name]), name
    for name, weight in one["vit"]["average"]["weights"].items():
        assert torch.equal(weight, two["vit"]["average"]["weights"][name]), name
    for i, state in one["optimizer_state"]["state"].items():
        assert torch.equal(state["exp_avg"], two["optimizer_state"]["state"][i]["exp_avg"])
    assert one["logging"]["lrs"] == two["logging"]["lrs"]
    assert one["logging"]["train_losses"] == two["logging"]["train_losses"]
    assert one["logging"]["mean_fg_dice"] == two["logging"]["mean_fg_dice"]
    assert one["_best_ema"] == two["_best_ema"]


@pytest.fixture
def stopped(runs, tmp_path):
    """The results of a run that was stopped, with the checkpoint of two epochs."""
    seed()
    with pytest.raises(Stopped):
        train(runs[0], tmp_path, stop_in=2)
    return tmp_path


def test_a_run_that_is_stopped_twice_equals_one_that_was_not(runs, stopped):
    config, whole, _ = runs
    for number in (5, 6):
        torch.rand(number)
        np.random.rand(number)
        if number == 5:
            with pytest.raises(Stopped):
                train(config, stopped, stop_in=3, continue_training=True)
    one, two = checkpoint(whole), checkpoint(train(config, stopped, continue_training=True))
    for name, weight in one["network_weights"].items():
        assert torch.equal(weight, two["network_weights"][name]), name
    assert one["logging"]["train_losses"] == two["logging"]["train_losses"]


def test_a_run_goes_on_from_a_checkpoint_that_knows_less(runs, stopped):
    """As stock nnU-Net writes it, and as our first release might have."""
    (file,) = stopped.rglob("checkpoint_latest.pth")
    content = torch.load(file, weights_only=False)
    for state in ({}, {"skipped_steps": 3}, None):
        lesser = {name: value for name, value in content.items() if name != "rebuilt_from"}
        if state is None:
            del lesser["vit"]
        else:
            lesser["vit"] = state
        torch.save(lesser, file)
        with pytest.raises(Stopped):
            train(runs[0], stopped, stop_in=2, continue_training=True)


def test_nothing_of_the_checkpoint_is_kept_by_a_run_that_goes_on(runs, stopped, monkeypatch):
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

    mapped, begin = [], nnUNetTrainer_vit.on_train_epoch_start

    def look(trainer):
        mapped.append("checkpoint_" in Path("/proc/self/maps").read_text())
        begin(trainer)

    if Path("/proc/self/maps").exists():
        monkeypatch.setattr(nnUNetTrainer_vit, "on_train_epoch_start", look)
    folder = train(runs[0], stopped, continue_training=True)
    assert not any(mapped)
    sizes = [(run / "debug.json").stat().st_size for run in (runs[1], folder)]
    assert sizes[1] < sizes[0] + 1000


def test_the_average_predicts_and_the_weights_train(runs):
    one = checkpoint(runs[1])
    name = "head.seg_layers.0.weight"
    assert not torch.equal(one["network_weights"][name], one["vit"]["average"]["weights"][name])


def test_the_rates_warm_up_and_the_backbone_wakes_later(runs):
    log = max(runs[1].glob("training_log*.txt")).read_text()
    rates = [line.split()[-1] for line in log.splitlines() if "  backbone: " in line]
    assert [float(rate) for rate in rates] == pytest.approx(
        [0, 1e-3 / 3, 2e-3 / 3, 1e-3 * 0.5**0.9], rel=1e-2
    )


def test_what_was_trained_how_lies_beside_the_results(runs):
    recorded = yaml.safe_load((runs[1].parent / "vit.yaml").read_text())
    assert recorded["train"]["ema"] == 0.9
    assert recorded["model"]["backbone"] == "test_vit"
    assert recorded["versions"]["timm"]
    assert recorded["data"]["cases"] == 10


def test_where_only_the_best_checkpoint_is_left_it_goes_on_from_that(runs, tmp_path):
    with pytest.raises(Stopped):
        train(runs[0], tmp_path, stop_in=1)
    (left,) = tmp_path.rglob("checkpoint_*.pth")
    assert left.name == "checkpoint_best.pth"
    for log in left.parent.glob("training_log*.txt"):
        log.unlink()  # of the same name as the next one if both begin in the same second
    folder = train(runs[0], tmp_path, continue_training=True)
    (log,) = folder.glob("training_log*.txt")
    assert "Epoch 0" not in log.read_text()
    assert checkpoint(folder)["current_epoch"] == 4


def test_an_edited_recipe_is_not_continued(runs, monkeypatch):
    config, _, resumed = runs
    content = yaml.safe_load(config.read_text())
    content["train"]["layer_decay"] = 0.7
    other = config.parent / "edited" / config.name
    other.parent.mkdir(exist_ok=True)
    other.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("nnUNet_results", str(resumed.parents[2]))
    with pytest.raises(UserError, match=r"train\.layer_decay was 1\.0 and is now 0\.7"):
        run_training_vit(DATASET, "2d", "all", other, device="cpu", continue_training=True)


def test_gradients_that_stay_bad_stop_the_run_with_advice(runs, home, monkeypatch):
    from nnunet_vit_trainer.training import trainer

    config = home / "bad.yaml"
    content = yaml.safe_load(runs[0].read_text())
    content["train"] |= {"num_iterations_per_epoch": 30, "accumulate_steps": 1}
    config.write_text(yaml.safe_dump(content))
    step = trainer.training_step

    def burst(*args, **options):
        loss, _ = step(*args, **options).read()
        return Outcome(torch.tensor(loss), torch.tensor(False))

    monkeypatch.setattr(trainer, "training_step", burst)
    with pytest.raises(UserError, match=r"not finite in 20 steps in a row; .*train\.initial_lr"):
        run_training_vit(DATASET, "2d", "all", config, device="cpu")
