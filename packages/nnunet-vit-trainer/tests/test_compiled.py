"""torch.compile of a training: what is compiled and when, and that it trains as eager does.

The compiler here runs the traced operators as they are: which graphs there are, and what they mean,
does not depend on it. benchmarks/compiled.py does the same by inductor, for every head.
"""

import importlib.util
import shutil

import pytest
import torch
from a_network import network
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from nnunet_vit_trainer.checkpoints.model_folder import FINAL
from nnunet_vit_trainer.training import compiling
from nnunet_vit_trainer.training import trainer as trainers
from nnunet_vit_trainer.training.averaging import WeightAverage
from nnunet_vit_trainer.training.compiling import (
    FEWEST_BATCHES,
    compiler_in_one_line,
    is_asked_for,
    reason_against,
)
from nnunet_vit_trainer.training.step import deep_supervision_weights, training_step
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
from vit_backbone import UserError
from vit_backbone.heads.recompute import set_recompute
from vit_backbone.testing.tools import wake

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIDE = 32
UNETR = {
    "head": "unetr",
    "decoder_channels": [16, 8, 8, 8, 8],
    "auxiliary_outputs": True,
    "shortcut": True,
    "image_stem": True,
}
PYRAMID = {
    "head": "segformer",
    "hidden_size": 16,
    "dropout": 0.0,
    "neck": "pyramid",
    "auxiliary_outputs": True,
    "shortcut": True,
    "image_stem": True,
}


class Counting:
    graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return aot_eager(graph, inputs)


def model_of(options):
    """Everything at once: LoRA, drop path, both checkpointings, outputs for deep supervision.

    In float64: rounding of float32 may turn the sign of what a LeakyReLU gets, and so a gradient.
    """
    model = network(backbone_options={"drop_path_rate": 0.2}, lora_dropout=0.1, **options).double()
    wake(model)
    model.backbone.set_grad_checkpointing(True)
    set_recompute(model.head)
    model.head.deep_supervision = True
    return model.train()


def loss_of(model):
    options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    outputs = len(model.head.deep_supervision_scales)
    return DeepSupervisionWrapper(loss, deep_supervision_weights(outputs))


def targets_of(model):
    target = torch.randint(0, 4, (2, 1, SIDE, SIDE)).float()
    sizes = [max(1, round(SIDE * scale)) for scale in model.head.deep_supervision_scales]
    return [nn.functional.interpolate(target, size) for size in sizes]


def train(model, run, steps=2):
    """Take steps with an online validation on the average after each; return what they gave."""
    torch.manual_seed(1)
    image, targets = torch.rand(2, 3, SIDE, SIDE).double(), targets_of(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.01)
    average, loss, found = WeightAverage(model, 0.9), loss_of(model), []
    for _ in range(steps):
        value, _ = training_step(
            run, loss, optimizer, [(image, targets)], gradient_clip=12.0
        ).read()
        found += [torch.tensor(value), *(p.grad.clone() for p in trained)]
        average.update()
        average.swap()
        run.eval()
        with torch.no_grad():
            found += run(image)
        run.train()
        average.swap()
    return found


@pytest.mark.parametrize("options", [UNETR, PYRAMID], ids=lambda options: options["head"])
def test_a_training_equals_eager_in_two_graphs(options):
    """One to train by, one to validate; a tile of the final validation is a third."""
    pytest.importorskip(f"vit_heads_{options['head']}")
    torch.compiler.reset()
    eager, model, counting = model_of(options), model_of(options), Counting()
    compiled = torch.compile(model, backend=counting, fullgraph=True)
    expected, got = train(eager, eager), train(model, compiled)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert counting.graphs == 2
    eager.eval()
    compiled.eval()
    eager.head.deep_supervision = model.head.deep_supervision = False
    with torch.inference_mode():
        for _ in range(3):
            tile = torch.rand(1, 3, SIDE, SIDE).double()
            torch.testing.assert_close(compiled(tile), eager(tile), rtol=1e-4, atol=1e-5)
    assert counting.graphs == 3


def test_a_compiler_that_fails_is_one_line():
    def fail(*_):
        raise OSError("no space left")

    torch.compiler.reset()
    expected = r"no space left.*nnUNet_compile=f trains without it"
    with pytest.raises(UserError, match=expected) as said, compiler_in_one_line():
        torch.compile(nn.Linear(1, 1), backend=fail)(torch.zeros(1, 1))
    assert "\n" not in str(said.value)


def test_the_final_validation_needs_no_graph_of_its_own(monkeypatch, tmp_path):
    network, seen = nn.Identity(), []
    trainer = nnUNetTrainer_vit.__new__(nnUNetTrainer_vit)
    trainer.network = compiled = torch.compile(network)
    trainer.output_folder, trainer.local_rank, trainer.split = str(tmp_path), 1, None
    trainer.do_split, trainer.validated = lambda: ([], []), FINAL
    monkeypatch.setattr(trainers, "warn_of_bad_cases", lambda *_: None)
    monkeypatch.setattr(
        nnUNetTrainer, "perform_actual_validation", lambda self, _: seen.append(self.network)
    )
    trainer.perform_actual_validation()
    assert seen == [network]
    assert trainer.network is compiled


@pytest.mark.parametrize(
    ("value", "asked"), [(None, False), ("t", True), ("1", True), ("True", True), ("f", False)]
)
def test_the_variable_is_read_as_nnunet_does(monkeypatch, value, asked):
    monkeypatch.delenv(compiling.SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(compiling.SWITCH, value)
    assert is_asked_for() == asked


@pytest.fixture
def a_new_gpu(monkeypatch):
    monkeypatch.delenv(compiling.SWITCH, raising=False)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old one")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "triton")
    monkeypatch.setattr(shutil, "which", lambda name: name in ("gcc", "g++", "clang++"))


@pytest.mark.usefixtures("a_new_gpu")
class TestReasons:
    def test_a_long_run_is_left_to_nnunet(self):
        for device in (CPU, CUDA, torch.device("mps")):
            assert reason_against(device, FEWEST_BATCHES) is None

    def test_what_is_off_needs_no_reason(self, monkeypatch):
        assert reason_against(CPU, 1) is None
        monkeypatch.setenv(compiling.SWITCH, "f")
        assert reason_against(CUDA, 1) is None

    def test_a_short_one_is_compiled_where_it_is_asked_for(self, monkeypatch):
        assert f"{FEWEST_BATCHES - 1} batches are too few" in reason_against(
            CUDA, FEWEST_BATCHES - 1
        )
        monkeypatch.setenv(compiling.SWITCH, "t")
        assert reason_against(CUDA, 1) is None

    def test_an_old_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
        assert "as old as an old one" in reason_against(CUDA, FEWEST_BATCHES)

    def test_no_triton(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        assert reason_against(CUDA, FEWEST_BATCHES) == "triton is not installed"

    def test_no_compiler(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        assert "no C compiler" in reason_against(CUDA, FEWEST_BATCHES)
        monkeypatch.setenv(compiling.SWITCH, "t")
        assert "no C++ compiler" in reason_against(CPU, 1)
        monkeypatch.setattr(shutil, "which", lambda name: name == "/my/cc")
        monkeypatch.setenv("CC", "/my/cc")
        monkeypatch.setenv("CXX", "/my/cc")
        assert reason_against(CUDA, FEWEST_BATCHES) is reason_against(CPU, FEWEST_BATCHES) is None
