"""Two runs of one seed are equal bit for bit, with a data worker too; of two seeds they are not."""

import itertools
import random

import numpy as np
import pytest
import torch
import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import run_training_vit
from nnunet_vit_trainer.training.seeding import (
    NNUNET,
    WORKERS,
    seed_generators,
    seeded_data_workers,
)

CONFIG = {
    "model": {
        "model_path": "linear",
        "backbone": "test_vit",
        "pretrained": False,
        "decoder": {"image_stem": True},
    },
    "lora": {"lora_dropout": 0.2},
    "train": {
        "num_epochs": 2,
        "num_iterations_per_epoch": 3,
        "num_val_iterations_per_epoch": 1,
        "drop_path_rate": 0.1,
        "grad_checkpointing_head": True,
        "batch_size": 2,
        "patch_size": [48, 48],
    },
}


def draw():
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_all_of_a_seeds_numbers_count():
    drawn = []
    for numbers in ((3, 0, 0), (3, 0, 0), (3, 1, 0), (3, 0, 1), (4, 0, 0)):
        seed_generators(*numbers)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    for one, two in itertools.pairwise(drawn[1:]):
        assert all(a != b for a, b in zip(one, two, strict=True))


def test_each_data_worker_gets_a_seed_of_its_own_and_nnunet_is_left_as_it_was(monkeypatch):
    given = []
    monkeypatch.setattr(NNUNET, WORKERS, lambda **named: given.append(named["seeds"]))
    before = getattr(NNUNET, WORKERS)
    for _ in range(2):
        with seeded_data_workers(7, 0, 0):
            for processes in (2, 1):  # training and validation
                getattr(NNUNET, WORKERS)(data_loader=None, num_processes=processes, seeds=None)
    assert getattr(NNUNET, WORKERS) is before
    assert given[:2] == given[2:]
    assert [len(seeds) for seeds in given[:2]] == [2, 1]
    assert len({*given[0], *given[1]}) == 3


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_two_runs_of_one_seed_are_equal_bit_for_bit(home, tmp_path, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *args: None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    found = []
    for run, seed in enumerate((5, 5, 6)):
        config = tmp_path / f"seed_{seed}.yaml"
        config.write_text(yaml.safe_dump(CONFIG | {"train": CONFIG["train"] | {"seed": seed}}))
        monkeypatch.setenv("nnUNet_results", str(tmp_path / f"results_{run}"))
        torch.rand(run)  # a fresh process would be anywhere
        folder = run_training_vit(DATASET, "2d", "all", config, device="cpu")
        found.append(torch.load(folder / "checkpoint_final.pth", weights_only=False))
    one, two, other = found
    for name, weight in one["network_weights"].items():
        assert torch.equal(weight, two["network_weights"][name]), name
    assert one["logging"]["train_losses"] == two["logging"]["train_losses"]
    assert one["logging"]["mean_fg_dice"] == two["logging"]["mean_fg_dice"]
    assert one["logging"]["train_losses"] != other["logging"]["train_losses"]
