"""The doctor on a device whose memory is not enough: one line, wherever it runs out."""

from io import StringIO
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.doctor import examine, print_page
from nnunet_vit_trainer.training.shortage.fitting import fits, fits_memory

FULL = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "numpy": MemoryError("Unable to allocate 8 GiB"),
}


def fail(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("device", sorted(FULL))
def test_a_full_memory_is_told_from_other_errors(device):
    assert not fits_memory(fail(FULL[device]), torch.device("cpu"))
    assert fits_memory(lambda: None, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        fits_memory(fail(RuntimeError("shapes differ")), torch.device("cpu"))


PREDICT = "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor"


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("place", "keys"),
    [
        (
            "nnunet_vit_trainer.training.trainer.nnUNetTrainer_vit.on_train_start",
            ["model.backbone_size"],
        ),
        ("nnunet_vit_trainer.training.trainer.nnUNetTrainer_vit.train_step", ["train.batch_size"]),
        (
            "nnunet_vit_trainer.training.trainer.nnUNetTrainer_vit.validation_step",
            ["train.patch_size"],
        ),
        (f"{PREDICT}.predict_sliding_window_return_logits", ["train.patch_size"]),
        ("nnunet_vit_trainer.doctor.costs.forward_flop", []),
    ],
)
def test_where_memory_is_not_enough_one_line_says_so(place, keys, home, tmp_path, monkeypatch):
    monkeypatch.setattr(place, fail(FULL["CUDA"]))
    config = tmp_path / "look.yaml"
    model = {"model_path": "linear", "backbone": "test_vit", "tune": "full", "pretrained": False}
    train = {"batch_size": 2, "patch_size": [32, 32]}
    config.write_text(yaml.safe_dump({"model": model, "train": train}))
    found = examine(DATASET, "2d", config, device="cpu")
    assert [problem.key for problem in found.problems if problem.fatal] == keys
    assert all("\n" not in problem.text for problem in found.problems)
    if not keys:
        assert "its GFLOP take too much memory; predicted" in dict(found.facts)["one tile"]
    text = StringIO()
    print_page(found, Console(file=text))
    assert all(f"fatal: {key}: " in text.getvalue() for key in keys)
    assert ("learning rate" in text.getvalue()) == bool(found.trainable)


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_is_not_taken_for_an_error():
    def train_step(batch):
        torch.empty(2**50, device="cuda")

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    device = torch.device("cuda")
    trainer = SimpleNamespace(train_step=train_step, optimizer=optimizer, device=device)
    assert not fits(trainer, {})
