"""The moving average of the weights, and of the statistics that fit them."""

import copy

import torch
from torch import nn

from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.training.averaging import WeightAverage


def test_the_average_follows_slowly_and_goes_round_with_a_checkpoint():
    torch.manual_seed(0)
    model = build_network(3, 4, head="linear", backbone_name="test_vit", lora_dropout=0.0)
    average = WeightAverage(model, decay=0.9)
    start = model.head.seg_layers[0].weight.detach().clone()
    name = "head.seg_layers.0.weight"
    expected = start.clone()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    for t in range(1, 4):
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        average.update()
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * model.head.seg_layers[0].weight
    assert torch.allclose(average.average[name], expected, atol=1e-6)
    assert not any("base_layer" in n for n in average.average)
    weight = model.head.seg_layers[0].weight.detach().clone()
    state = copy.deepcopy(average.state())
    average.swap()
    assert torch.allclose(model.head.seg_layers[0].weight, expected, atol=1e-6)
    again = WeightAverage(model, decay=0.9)
    again.restore(state)
    assert torch.equal(model.head.seg_layers[0].weight, weight)
    assert torch.allclose(again.average[name], expected, atol=1e-6)
    assert again.updates == 3


def with_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))


def move(model, average, steps=3):
    """Train as far as averaging goes: weights and statistics change."""
    for _ in range(steps):
        model(5 + torch.randn(8, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        average.update()


def test_averaged_weights_meet_averaged_batch_statistics():
    model = with_batch_norm()
    model.register_buffer("not_saved", torch.zeros(1), persistent=False)
    average, expected = WeightAverage(model, decay=0.9), model[1].running_mean.clone()
    for t in range(1, 4):
        move(model, average, steps=1)
        decay = (1 + t) / (10 + t)
        expected = decay * expected + (1 - decay) * model[1].running_mean
    raw = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average.swap()
    assert torch.allclose(model[1].running_mean, expected)
    assert not torch.allclose(expected, raw["1.running_mean"])
    assert average.average.keys() <= model.state_dict().keys()
    average.swap()
    assert all(torch.equal(tensor, raw[n]) for n, tensor in model.state_dict().items())


def test_batch_statistics_go_on_after_a_checkpoint():
    model = with_batch_norm()
    average = WeightAverage(model, decay=0.9)
    move(model, average)
    written = copy.deepcopy((model.state_dict() | average.average, average.state()))
    again = with_batch_norm()
    again.load_state_dict(written[0])
    resumed = WeightAverage(again, decay=0.9)
    resumed.restore(written[1])
    torch.manual_seed(1)
    move(model, average)
    torch.manual_seed(1)
    move(again, resumed)
    for one, other in (
        (model.state_dict(), again.state_dict()),
        (average.average, resumed.average),
    ):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_checkpoint_of_0_1_0_whose_buffers_have_no_average_goes_on():
    model = with_batch_norm()
    average = WeightAverage(model, decay=0.9)
    move(model, average)
    state = copy.deepcopy(average.state())
    for name in ("1.running_mean", "1.running_var"):
        del state["weights"][name]
    parameters = {name: average.average[name] for name, _ in model.named_parameters()}
    again = with_batch_norm()
    again.load_state_dict(model.state_dict() | parameters)
    resumed = WeightAverage(again, decay=0.9)
    resumed.restore(state)
    assert torch.equal(again[1].running_mean, model[1].running_mean)
    assert torch.equal(resumed.average["1.running_mean"], model[1].running_mean)
    assert torch.equal(again[0].weight, model[0].weight)


def test_saving_copies_no_weights():
    """On a GPU there may be no room for them."""
    model = with_batch_norm()
    state = WeightAverage(model, decay=0.9).state()
    assert {n: t.data_ptr() for n, t in state["weights"].items()} == {
        n: t.data_ptr() for n, t in model.state_dict().items() if n in state["weights"]
    }
    assert not any(tensor.requires_grad for tensor in state["weights"].values())
