"""What makes the head cheaper changes neither its values nor its gradients."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.utils import prune

from vit_backbone.testing.tools import Doubled, wake
from vit_heads_unetr import DeconvBlock, UNETRHead

CHANNELS = (12, 8, 6, 4, 4)
OPTIONS = {"image_skip": True, "shortcut": True, "image_stem": True}


def plain_form(block, x):
    """As the specification says it: each layer after the other."""
    for layer in block:
        x = layer(x)
    return x


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (4, 5)])
@pytest.mark.parametrize(("channels", "width"), [(6, 6), (5, 4), (24, 8)])
def test_the_folded_convolutions_equal_the_plain_form_at_the_border_too(channels, width, size):
    torch.manual_seed(0)
    block = DeconvBlock(channels, width).double()
    assert block.folds == (channels < 3 * width)
    x = torch.randn(2, channels, *size, dtype=torch.double, requires_grad=True)
    got, expected = block(x), plain_form(block, x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    wanted, toward = [*block.parameters(), x], torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((got * toward).sum(), wanted),
        torch.autograd.grad((expected * toward).sum(), wanted),
        rtol=1e-7,
        atol=1e-9,
    )


def test_a_bias_of_0_1_0_is_folded_too():
    torch.manual_seed(0)
    head = UNETRHead(8, 2, CHANNELS, conv_bias=True).double()
    block = head.encoder.z1[1]
    torch.nn.init.normal_(block[1].bias)
    x = torch.randn(1, 4, 3, 3, dtype=torch.double)
    assert block.folds
    torch.testing.assert_close(block(x), plain_form(block, x))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_what_is_computed_anew_equals_what_was_kept_and_less_is_held(deep_supervision):
    torch.manual_seed(0)
    head = UNETRHead(8, 2, CHANNELS, **OPTIONS, auxiliary_outputs=True)
    head.deep_supervision = deep_supervision
    taps = [torch.randn(2, 8, 4, 4, requires_grad=True) for _ in range(4)]
    image, results, held = torch.randn(2, 3, 64, 64), [], []
    wake(head)
    for recompute in (False, True):
        head.recompute = head.image_stem.recompute = recompute
        tracker = MemTracker()
        with tracker:
            before = allocated(tracker)
            outputs = head(taps, image)
            held.append(allocated(tracker) - before)
        outputs = outputs if deep_supervision else [outputs]
        sum(output.square().mean() for output in outputs).backward()
        learned = [*head.parameters(), *taps]
        results.append([*outputs, *(x.grad for x in learned if x.grad is not None)])
        for x in learned:
            x.grad = None
    assert len(results[1]) == len(results[0])
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    assert held[1] < 0.7 * held[0]


def allocated(tracker):
    return sum(of["Total"] for of in tracker.get_tracker_snapshot("current").values())


@pytest.mark.slow
def test_recomputing_compiles_in_one_graph():
    torch.compiler.reset()
    torch.manual_seed(0)
    head = UNETRHead(8, 2, CHANNELS, **OPTIONS)
    head.recompute = head.image_stem.recompute = True
    taps, image = [torch.randn(1, 8, 2, 2) for _ in range(4)], torch.randn(1, 3, 32, 32)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    loss, expected = compiled(taps, image).square().mean(), head(taps, image).square().mean()
    parameters = list(head.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_was_replaced_is_called(layer):
    """An adapter, or a parametrized layer, does more than its weight says."""
    torch.manual_seed(0)
    block, x = DeconvBlock(6, 6), torch.randn(1, 6, 3, 3)
    block[layer] = Doubled(block[layer])
    assert not block.folds
    torch.testing.assert_close(block(x), plain_form(block, x))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_whose_weight_a_hook_makes_is_called(layer):
    torch.manual_seed(0)
    block, x = DeconvBlock(6, 6), torch.randn(1, 6, 3, 3)
    prune.random_unstructured(block[layer], "weight", 0.5)
    before = block(x)
    block[layer].weight_orig.data.neg_()
    after = block(x)
    torch.testing.assert_close(after, plain_form(block, x))
    assert not torch.allclose(after, before)
