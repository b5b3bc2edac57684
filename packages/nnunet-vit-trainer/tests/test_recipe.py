"""The recipe: which rate and decay each parameter gets, and how the rates run."""

import copy

import pytest
import torch
from a_network import network, optimizer_of, take_step
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.training.optimization import (
    PATCH_EMBEDDING_LR_SCALE,
    Schedule,
    default_warmup,
    layer_of,
    parameter_groups,
)


def rates(optimizer):
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


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
