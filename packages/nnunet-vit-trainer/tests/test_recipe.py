"""The recipe: groups and rates, schedule, one step, and what stops a bad run."""

import copy

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunet_vit_trainer.checkpoints.content import random_states, set_random_states
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.training.optimization import (
    PATCH_EMBEDDING_LR_SCALE,
    Schedule,
    build_optimizer,
    default_warmup,
    layer_of,
    parameter_groups,
)
from nnunet_vit_trainer.training.step import resolve_amp_dtype, training_step
from nnunet_vit_trainer.training.watch import MAX_SKIPPED_STEPS, StepWatch, refuse_idle_lora
from vit_backbone import UserError

IMAGE, TARGET = torch.randn(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.long)


def network(in_channels=3, **options):
    torch.manual_seed(0)
    options = {"head": "linear", "backbone_name": "test_vit", "lora_dropout": 0.0} | options
    return build_network(in_channels, 4, **options)


def optimizer_of(model, **options):
    return build_optimizer(model, **{"initial_lr": 1e-3, "weight_decay": 0.1} | options)


def rates(optimizer):
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def take_step(model, optimizer, batches=((IMAGE, TARGET),), loss=None, **options):
    loss = loss or nn.functional.cross_entropy
    return training_step(model, loss, optimizer, batches, **{"gradient_clip": 12.0} | options)


def test_what_trains_is_optimized_once_and_nothing_else():
    model = network()
    optimized = [id(p) for group in optimizer_of(model).param_groups for p in group["params"]]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "vit_small_patch14_reg4_dinov2"])
def test_no_decay_for_norms_biases_positions_tokens_and_layer_scale(name):
    with torch.device("meta"):
        model = build_network(3, 4, head="linear", backbone_name=name, use_lora=False)
    groups = parameter_groups(model, initial_lr=1e-3, weight_decay=0.1)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    kept = [n for n, p in model.named_parameters() if id(p) not in decayed]
    parts = ("norm", "bias", "pos_embed", "_token", "gamma", "reg_token")
    assert kept
    assert all(any(part in n for part in parts) for n in kept)
    assert [n for n in kept if "reg_token" in n]
    weights = [n for n, p in model.named_parameters() if id(p) in decayed]
    assert all(n.endswith((".weight", "_weight")) and "norm" not in n for n in weights)


def test_layers_are_counted_from_the_embeddings_to_the_final_norm():
    names = ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.11.x")
    assert [layer_of(name, 12) for name in (*names, "norm.weight")] == [0, 0, 1, 12, 13]


def test_the_backbone_has_its_own_rate_and_every_layer_under_it_a_lower_one():
    model = network(use_lora=False)
    optimizer = optimizer_of(model, backbone_lr_scale=0.1, layer_decay=0.5)
    depth = len(model.backbone.blocks)
    found = rates(optimizer)
    assert found["head"] == pytest.approx(1e-3)
    assert found[f"backbone layer {depth + 1}, no decay"] == pytest.approx(1e-4)
    assert found["backbone layer 0"] == pytest.approx(1e-4 * 0.5 ** (depth + 1))


def test_an_adapted_patch_embedding_has_its_own_rate_through_the_schedule():
    optimizer = optimizer_of(network(in_channels=1))
    Schedule(optimizer, num_epochs=10).step(5)
    found = rates(optimizer)
    assert found["head"] == pytest.approx(1e-3 * 0.5**0.9)
    assert found["backbone"] == found["head"]
    scaled = found["head"] * PATCH_EMBEDDING_LR_SCALE
    assert found["adapted patch embedding"] == pytest.approx(scaled)
    PolyLRScheduler(optimizer, 1e-3, 10).step(5)  # the trap: nnU-Net's flattens the groups
    assert len(set(rates(optimizer).values())) == 1


def test_without_lora_an_adapted_patch_embedding_trains_as_the_backbone_does():
    found = rates(optimizer_of(network(in_channels=1, use_lora=False), backbone_lr_scale=0.1))
    assert set(found.values()) == {1e-3, 1e-4}


def test_the_rates_of_a_schedule():
    optimizer = optimizer_of(network(), head_first_epochs=3)
    poly = Schedule(optimizer, num_epochs=20, warmup_epochs=4)
    assert [poly.factor(e) for e in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert poly.factor(12) == pytest.approx(0.5**0.9)
    poly.step(2)
    assert rates(optimizer)["head"] > 0
    assert rates(optimizer)["backbone"] == 0
    assert [poly.factor(e, first_epoch=3) for e in (2, 3, 4)] == pytest.approx([0, 0.2, 0.4])
    cosine = Schedule(optimizer_of(network()), num_epochs=20, kind="cosine")
    assert [cosine.factor(e) for e in (0, 10, 20)] == pytest.approx([1, 0.5, 0])
    assert (default_warmup(1000), default_warmup(8)) == (50, 0)


def test_the_backbone_sleeps_while_the_head_trains():
    model = network(use_lora=False)
    optimizer = optimizer_of(model, head_first_epochs=1)
    before = copy.deepcopy(model.state_dict())
    schedule = Schedule(optimizer, num_epochs=4)
    schedule.step(0)
    take_step(model, optimizer)
    moved = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    assert moved == {"head.seg_layers.0.weight", "head.seg_layers.0.bias"}
    schedule.step(1)
    take_step(model, optimizer)
    assert not torch.equal(model.backbone.norm.weight, before["backbone.norm.weight"])


def test_a_resumed_schedule_gives_the_rates_of_one_that_was_not_stopped():
    optimizer = optimizer_of(network(), backbone_lr_scale=0.1)
    Schedule(optimizer, num_epochs=10).step(3)
    again = optimizer_of(network(), backbone_lr_scale=0.1)
    schedule = Schedule(again, num_epochs=10)
    again.load_state_dict(optimizer.state_dict())
    schedule.step(4)
    Schedule(one := optimizer_of(network(), backbone_lr_scale=0.1), num_epochs=10).step(4)
    assert rates(again) == rates(one)


def test_sgd_is_nnunets():
    optimizer = optimizer_of(network(), optimizer="sgd")
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.99, True)


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


def test_accumulated_batches_give_the_gradient_of_the_whole():
    whole, halves = network(), network()
    one, _ = take_step(whole, optimizer_of(whole))
    parts = [(IMAGE[:2], TARGET[:2]), (IMAGE[2:], TARGET[2:])]
    two, _ = take_step(halves, optimizer_of(halves), parts)
    assert one == pytest.approx(two, rel=1e-5)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6)


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
        torch.equal(now["exp_avg"], moments["state"][i]["exp_avg"])
        for i, now in optimizer.state_dict()["state"].items()
    )


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
