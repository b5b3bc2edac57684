"""One step of a training: clipping, precision, what is not finite, and what stops a bad run."""

import copy
import math

import pytest
import torch
from a_network import IMAGE, TARGET, network, optimizer_of, take_step
from torch import nn

from nnunet_vit_trainer.checkpoints.content import random_states, set_random_states
from nnunet_vit_trainer.training.oversight.watch import (
    MAX_SKIPPED_STEPS,
    StepWatch,
    refuse_idle_lora,
)
from nnunet_vit_trainer.training.step import resolve_amp_dtype, training_step
from vit_backbone import UserError


def test_a_step_clips_the_gradient_to_what_was_asked_and_moves_the_weights():
    model = network()
    before = copy.deepcopy(model.state_dict())

    def steep(output, target):
        return 1e3 * nn.functional.cross_entropy(output, target)

    loss, taken = take_step(model, optimizer_of(model), loss=steep, gradient_clip=0.25)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert nn.utils.get_total_norm(gradients) == pytest.approx(0.25, rel=1e-3)
    assert loss > 0
    assert taken
    moved = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    assert "head.seg_layers.0.weight" in moved
    assert all(".lora_" in n or n.startswith("head.") for n in moved)


def test_what_sleeps_does_not_shorten_the_step_of_the_others():
    """Its gradient is there, and its rate is 0 (``head_first_epochs``)."""

    def steep(output, target):
        return 1e3 * nn.functional.cross_entropy(output, target)

    model = network()
    head = [*model.head.parameters()]
    others = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [{"params": head, "lr": 0.1}, {"params": others, "lr": 0.0}]
    _, taken = take_step(model, torch.optim.SGD(groups), loss=steep, gradient_clip=0.25)
    assert taken
    assert nn.utils.get_total_norm([p.grad for p in head]) == pytest.approx(0.25, rel=1e-3)
    assert any(p.grad.any() for p in others)
    others[0].register_hook(lambda gradient: gradient * math.nan)
    before = copy.deepcopy(model.state_dict())
    _, taken = take_step(model, torch.optim.SGD(groups), loss=steep, gradient_clip=0.25)
    assert not taken
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_accumulated_batches_give_the_gradient_of_the_whole():
    whole, halves = network(), network()
    one, _ = take_step(whole, optimizer_of(whole))
    parts = [(IMAGE[:2], TARGET[:2]), (IMAGE[2:], TARGET[2:])]
    two, _ = take_step(halves, optimizer_of(halves), parts)
    assert one == pytest.approx(two, rel=1e-5)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_first_step_that_is_not_taken_leaves_nothing_behind(kind):
    """The trap: torch's fused SGD would go on with a momentum that nobody has written."""
    clean, bad = network(), network()
    options = {"optimizer": kind, "initial_lr": 1e-2}
    optimizers = optimizer_of(clean, **options), optimizer_of(bad, **options)
    assert take_step(bad, optimizers[1], [(torch.full_like(IMAGE, torch.nan), TARGET)])[1] is False
    for _ in range(3):
        losses = [take_step(m, o)[0] for m, o in zip((clean, bad), optimizers, strict=True)]
    assert losses[0] == losses[1]


def test_a_state_of_0_1_0_goes_on_in_the_fused_kernel():
    """The trap: torch takes the kernel from the state, and none but the fused leaves steps out."""
    model = network()
    optimizer = optimizer_of(model)
    take_step(model, optimizer)
    old = optimizer.state_dict()
    for group in old["param_groups"]:
        group |= {"fused": None, "foreach": None}
    again = optimizer_of(model)
    again.load_state_dict(old)
    assert {(group["fused"], group["foreach"]) for group in again.param_groups} == {(True, None)}
    before = copy.deepcopy(model.state_dict())
    _, taken = take_step(model, again, [(torch.full_like(IMAGE, torch.nan), TARGET)])
    assert not taken
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_with_a_bad_gradient_is_not_taken(bad):
    model = network()
    optimizer = optimizer_of(model)
    take_step(model, optimizer)
    before, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    image = IMAGE.clone()
    image[0, 0, 0, 0] = bad
    _, taken = take_step(model, optimizer, [(image, TARGET)])
    assert not taken
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert all(
        torch.equal(now[name], value)
        for i, now in optimizer.state_dict()["state"].items()
        for name, value in moments["state"][i].items()
    )


def test_a_step_that_is_not_taken_leaves_batch_norms_as_they_were():
    """They would hold NaN for ever, which training does not see and every prediction does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    kinds = ("running_mean", "running_var")
    found = []
    for value in (1.0, torch.nan, 1.0):
        target = torch.zeros(2, 4, 4, dtype=torch.long)
        batch = (torch.rand(2, 3, 4, 4) * value, target)
        loss = nn.functional.cross_entropy
        training_step(model, loss, optimizer, [batch], gradient_clip=1.0)
        found.append([getattr(model[1], kind).clone() for kind in kinds])
    first, skipped, last = found
    assert all(map(torch.equal, first, skipped))
    assert all(statistic.isfinite().all() for statistic in last)
    assert not any(map(torch.equal, skipped, last))


def test_gradient_checkpointing_computes_twice_and_gives_the_same_gradients():
    plain, checkpointed = network(), network()
    checkpointed.backbone.set_grad_checkpointing(True)
    calls = []
    checkpointed.backbone.blocks[0].attn.register_forward_hook(lambda *args: calls.append(1))
    for model in (plain, checkpointed):
        take_step(model, optimizer_of(model))
    assert len(calls) == 2
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-7)


def test_drop_path_drops_in_training_only():
    model = network(use_lora=False, backbone_options={"drop_path_rate": 0.5}).train()
    assert not torch.equal(model(IMAGE), model(IMAGE))
    model.eval()
    assert torch.equal(model(IMAGE), model(IMAGE))


def test_too_many_bad_steps_in_a_row_stop_the_run_with_advice():
    watch = StepWatch()
    for _ in range(3):
        for _ in range(MAX_SKIPPED_STEPS - 1):
            watch.count(False, "lower it")
        watch.count(True, "lower it")
    assert watch.skipped == 3 * (MAX_SKIPPED_STEPS - 1)
    for _ in range(MAX_SKIPPED_STEPS - 1):
        watch.count(False, "lower it")
    with pytest.raises(UserError, match=f"in {MAX_SKIPPED_STEPS} steps in a row; lower it"):
        watch.count(False, "lower it")


def test_adapters_that_the_backbone_goes_around_stop_the_run():
    """The trap: timm's EVA attention calls F.linear with qkv.weight; `create_backbone` mends it."""
    model = network(backbone_name="vit_small_patch16_dinov3_qkvb")
    for block in model.backbone.blocks:
        block.attn.qkv_bias_separate = False
    model(IMAGE[:1]).square().mean().backward()
    with pytest.raises(UserError, match="24 of 24 LoRA tensors got no gradient"):
        refuse_idle_lora(model)
    good = network()
    take_step(good, optimizer_of(good))
    refuse_idle_lora(good)


def test_random_numbers_go_on_where_a_checkpoint_was_written():
    states = random_states()
    drawn = torch.rand(3)
    set_random_states(states)
    assert torch.equal(drawn, torch.rand(3))


def test_precision_follows_the_device():
    assert resolve_amp_dtype("auto", "cpu") is None
    assert resolve_amp_dtype("float32", "cuda") is None
    assert resolve_amp_dtype("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(UserError, match="float16 needs CUDA"):
        resolve_amp_dtype("float16", "cpu")


@pytest.mark.parametrize(("real", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_emulated_bfloat16_does_not_count(real, expected, monkeypatch):
    """A Turing card emulates it, several times slower than its float16."""
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or real,
    )
    assert resolve_amp_dtype("auto", "cuda") == expected


def test_a_step_in_bfloat16_keeps_the_weights_in_float32():
    model, seen = network(), []
    model.head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    take_step(model, optimizer_of(model), amp_dtype=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.gpu
def test_a_step_on_cuda_runs_in_bfloat16_and_float16_is_scaled():
    for dtype in (resolve_amp_dtype("auto", "cuda"), torch.float16):
        model, seen = network(backbone_options={"float16_as": "float16"}).cuda(), []
        model.head.register_forward_hook(
            lambda module, args, out, seen=seen: seen.append(out.dtype)
        )
        scaler = torch.amp.GradScaler("cuda") if dtype == torch.float16 else None
        batches = [(IMAGE.cuda(), TARGET.cuda())]
        loss, _ = take_step(
            model, optimizer_of(model), batches, amp_dtype=dtype, grad_scaler=scaler
        )
        assert seen == [dtype]
        assert loss > 0
