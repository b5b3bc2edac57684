"""Where memory is not enough, one line says what to change, and to what."""

from types import SimpleNamespace

import pytest
import torch
from a_network import network

from nnunet_vit_trainer.training.shortage import memory
from nnunet_vit_trainer.training.shortage.memory import (
    Full,
    advice,
    full_memory,
    what_fits,
    within_memory,
)
from vit_backbone import UserError

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total")
BATCH = {"data": torch.zeros(3, 1, 8, 8), "target": torch.zeros(3, 1, 8, 8)}


class Trainer:
    """What `within_memory` takes of nnU-Net's; a step fits as many images as ``room`` says."""

    def __init__(self, folder, room=(3, 3), batch_size=12, head="linear", size="large", **recipe):
        self.network = network(head=head, **recipe.pop("network", {}))
        self.recipe = {"grad_checkpointing": False, "grad_checkpointing_head": False} | recipe
        self.batch_size = batch_size
        self.configuration_manager = SimpleNamespace(batch_size=batch_size, patch_size=[512, 512])
        model = {"model": {"backbone_size": size}}
        self.plans_manager = SimpleNamespace(plans={"vit": model})
        self.device = torch.device("cpu")
        self.output_folder = str(folder)
        self.dataloader_train = iter([BATCH])
        self.optimizer = torch.optim.SGD(self.network.parameters())
        self.room = room

    def train_step(self, batch):
        saves = self.network.backbone.grad_checkpointing
        if len(batch["data"]) > self.room[saves]:
            raise FULL

    def validation_step(self, batch):
        raise FULL

    def perform_actual_validation(self):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: you tried to allocate 64 bytes")


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)


def told(trainer, work):
    with pytest.raises(UserError) as caught:
        within_memory(trainer, work)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


def test_a_step_says_batch_patch_switches_and_backbone(trainer):
    said = told(trainer, lambda: trainer.train_step({"data": torch.zeros(12)}))
    assert said == (
        "a training step of train.batch_size 12 and train.patch_size [512, 512] does not fit the "
        "memory that there is (cpu) (2.00 GiB more asked for); use train.grad_checkpointing: true, "
        "train.batch_size: 6 or a smaller train.patch_size or a smaller model.backbone_size "
        "(large now)"
    )


def test_a_step_after_the_first_checkpoint_says_what_may_still_change(trainer, tmp_path):
    (tmp_path / "checkpoint_latest.pth").touch()
    said = told(trainer, lambda: trainer.train_step({"data": torch.zeros(12)}))
    assert said.endswith("; of these --c takes only the checkpointing options")


def test_the_online_validation_keeps_nothing_that_a_switch_would_save(trainer):
    said = told(trainer, lambda: trainer.validation_step(BATCH))
    assert said.startswith("validating a batch of train.batch_size 12 and")
    assert "train.batch_size: 6" in said
    assert "grad_checkpointing" not in said


def test_the_final_validation_says_that_the_training_is_saved(trainer):
    said = told(trainer, trainer.perform_actual_validation)
    assert "(64 bytes more asked for); the training is saved" in said
    assert "--val -device cpu" in said
    assert "batch" not in said


def test_a_network_that_does_not_fit_needs_a_smaller_backbone(tmp_path):
    def initialize():
        raise MemoryError

    said = told(Trainer(tmp_path, size="giant"), initialize)
    assert said.startswith("the network does not fit")
    assert said.endswith("use a smaller model.backbone_size (giant now)")
    assert told(Trainer(tmp_path, size=None), initialize).endswith("use a smaller model.backbone")


def test_what_is_on_already_and_what_has_no_use_is_not_named(tmp_path):
    on = Trainer(tmp_path, batch_size=1, grad_checkpointing=True)
    said = told(on, lambda: on.train_step({"data": torch.zeros(12)}))
    assert "grad_checkpointing" not in said
    assert "train.batch_size:" not in said
    frozen = Trainer(tmp_path, network={"freeze_backbone": True, "use_lora": False})
    assert "grad_checkpointing" not in advice(frozen, Full("train_step", ""))
    stem = Trainer(tmp_path, network={"image_stem": True})
    assert "train.grad_checkpointing_head: true" in advice(stem, Full("train_step", ""))


def test_on_a_gpu_what_fits_is_measured(trainer, monkeypatch):
    trainer.room = (3, 12)
    trainer.device = SimpleNamespace(type="cuda")
    for name, value in {"mem_get_info": (2**30, 24 * 2**30), "memory_reserved": 2**34}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    said = told(trainer, lambda: trainer.train_step({"data": torch.zeros(12)}))
    assert "the GPU's 24.0 GiB, of which 7.0 are others' (2.00 GiB more asked for)" in said
    assert "it fits with train.batch_size: 3, or with train.grad_checkpointing: true; a sm" in said


@pytest.mark.parametrize(
    ("room", "found"),
    [
        ((0, 0), []),
        ((1, 1), ["train.batch_size: 1"]),
        ((7, 11), ["train.batch_size: 6"]),
        ((0, 12), ["train.grad_checkpointing: true"]),
    ],
)
def test_what_fits_is_tried(room, found, trainer):
    trainer.room, loader = room, trainer.dataloader_train
    assert what_fits(trainer) == found
    assert trainer.dataloader_train is loader


def test_a_device_that_is_in_disorder_still_gets_its_line(trainer, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(memory, "fits", broken)
    assert what_fits(trainer) == []


def test_what_a_step_kept_is_given_back_before_others_are_tried():
    """The error's traceback holds every tensor of the step that did not fit."""
    import weakref

    held = []

    def train_step():
        activations = torch.zeros(10)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError(str(FULL))  # that of the module would keep its traceback

    assert full_memory(train_step) == Full("train_step", "2.00 GiB")
    assert held[0]() is None


def test_other_errors_are_raised(trainer):
    def fail():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        within_memory(trainer, fail)
    within_memory(trainer, lambda: None)
