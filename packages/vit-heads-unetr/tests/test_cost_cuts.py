"""What makes the head cheaper changes neither its values nor its gradients."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.utils import prune

from vit_backbone.testing.tools import Doubled, wake
from vit_heads_unetr import DeconvBlock, UNETRHead
from vit_heads_unetr.cheaper import conv_of_doubled, mixes, trains_on_cpu

CHANNELS = (12, 8, 6, 4, 4)
MIXED = (12, 10, 9, 8, 4)
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
    x = torch.randn(2, channels, *size, dtype=torch.double, requires_grad=True)
    assert block.folds(x) == (channels < 3 * width)
    expect_equal(block(x), plain_form(block, x), [*block.parameters(), x])


def expect_equal(got, expected, wanted):
    """In values and in gradients of the wanted."""
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    toward = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((got * toward).sum(), wanted),
        torch.autograd.grad((expected * toward).sum(), wanted),
        rtol=1e-7,
        atol=1e-9,
    )


def test_a_wide_block_is_folded_only_where_a_cpu_trains_it_on_enough_pixels():
    torch.manual_seed(0)
    block = DeconvBlock(70, 66).double()
    small, large = (torch.randn(2, 70, s, s, dtype=torch.double) for s in (12, 20))
    assert not block.folds(small)
    assert block.folds(large)
    with torch.no_grad():
        assert not block.folds(large)
    assert not block.folds(large.to("meta"))
    x = large.requires_grad_()
    expect_equal(block(x), plain_form(block, x), [*block.parameters(), x])


def test_a_bias_of_0_1_0_is_folded_too():
    torch.manual_seed(0)
    head = UNETRHead(8, 2, CHANNELS, conv_bias=True).double()
    block = head.encoder.z1[1]
    torch.nn.init.normal_(block[1].bias)
    x = torch.randn(1, 4, 3, 3, dtype=torch.double)
    assert block.folds(x)
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
    assert not block.folds(x)
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


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 2), (6, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_mixed_equals_doubled_concatenated_and_convolved_at_the_border_too(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(7 + 3, 5, kernel_size=3, padding=1, bias=bias).double()
    coarse = torch.randn(2, 7, *size, dtype=torch.double, requires_grad=True)
    skip = torch.randn(2, 3, 2 * size[0], 2 * size[1], dtype=torch.double, requires_grad=True)
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    expect_equal(
        conv_of_doubled(coarse, skip, conv.weight, conv.bias),
        conv(torch.cat([upsample(coarse), skip], dim=1)),
        [*conv.parameters(), coarse, skip],
    )


@pytest.mark.parametrize("options", [{}, {"conv_bias": True}, {"upsample": "deconv"}])
def test_the_head_learns_the_same_with_and_without(monkeypatch, options):
    torch.manual_seed(0)
    head = UNETRHead(8, 3, MIXED, **options).double()
    taps = [torch.randn(2, 8, 1, 2, dtype=torch.double, requires_grad=True) for _ in range(4)]
    image = torch.randn(2, 3, 16, 32)
    mixed, asked = head(taps, image), []
    monkeypatch.setattr("vit_heads_unetr.decoder.mixes", lambda *layers: asked.append(layers))
    expect_equal(mixed, head(taps, image), [*head.parameters(), *taps])
    counted = [mixes(*layers) for layers in asked]
    assert counted == ([False] * 3 if "upsample" in options else [True, True, False])


def layers():
    """Return what `mixes` takes, and is content with."""
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return upsample, nn.Conv2d(6, 4, kernel_size=3, padding=1), torch.randn(1, 4, 4, 3)


def test_a_layer_that_was_replaced_or_has_a_hook_is_called():
    upsample, conv, coarse = layers()
    assert mixes(upsample, conv, coarse)
    assert not mixes(nn.Identity(), conv, coarse)
    assert not mixes(upsample, Doubled(conv), coarse)
    called = []
    hook = conv.register_full_backward_hook(lambda *_: called.append(1))
    assert not mixes(upsample, conv, coarse)
    hook.remove()
    assert mixes(upsample, conv, coarse)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(6, 4, kernel_size=3, padding=1, padding_mode="reflect"),
        nn.Conv2d(6, 4, kernel_size=3, padding=2, dilation=2),
        nn.Conv2d(6, 4, kernel_size=5, padding=2),
        nn.Conv2d(6, 4, kernel_size=3, padding=1, groups=2),
    ],
)
def test_a_convolution_of_other_settings_is_called(other):
    upsample, _, coarse = layers()
    assert not mixes(upsample, other, coarse)
    block = DeconvBlock(6, 6)
    block[1] = other
    assert not block.folds(torch.randn(1, 6, 3, 3))


@pytest.mark.parametrize("settings", [{"mode": "nearest"}, {"align_corners": True}])
def test_a_doubling_of_other_settings_is_called(settings):
    _, conv, coarse = layers()
    other = nn.Upsample(**{"scale_factor": 2, "mode": "bilinear"} | settings)
    assert not mixes(other, conv, coarse)
    block, x = DeconvBlock(6, 6), torch.randn(1, 6, 3, 3)
    block[0] = nn.ConvTranspose2d(6, 6, kernel_size=2, stride=2, bias=False)
    torch.testing.assert_close(block(x), plain_form(block, x))


def test_a_forward_that_a_tool_set_is_called():
    upsample, conv, coarse = layers()
    conv.forward = lambda x: x
    assert not mixes(upsample, conv, coarse)


def test_a_hook_of_a_whole_merge_is_called():
    head = UNETRHead(8, 2, MIXED)
    called = []
    for merge in head.decoder.merges:
        merge.register_forward_hook(lambda *_: called.append(1))
    head([torch.randn(1, 8, 2, 2) for _ in range(4)], torch.randn(1, 3, 32, 32))
    assert len(called) == 3


def test_only_training_in_full_precision_on_a_cpu_has_the_cuts():
    x = torch.randn(1, 4, 4, 4)
    assert trains_on_cpu(x)
    assert not trains_on_cpu(x.bfloat16())
    assert not trains_on_cpu(x.to("meta"))
    with FakeTensorMode():
        assert not trains_on_cpu(torch.randn(1, 4, 4, 4))
    with torch.inference_mode():
        assert not trains_on_cpu(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trains_on_cpu(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_holds_at_other_sizes_and_has_no_cuts(monkeypatch):
    """Sizes decide for the cuts, and are constants in a trace."""
    torch.manual_seed(0)
    monkeypatch.delattr("vit_heads_unetr.decoder.conv_of_doubled")
    head = UNETRHead(8, 2, MIXED)

    def inputs(side):
        return [torch.randn(1, 8, side, side) for _ in range(4)], torch.randn(1, 3, 16, 16)

    traced = torch.jit.trace(head, inputs(4), check_trace=False)
    others = inputs(6)
    with torch.no_grad():
        torch.testing.assert_close(traced(*others), head(*others), rtol=1e-4, atol=1e-5)
