"""The pyramid folded into the head equals the plain form; its cost; what is added to it."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vit_backbone import UserError
from vit_backbone.segmentation.geometry import resized
from vit_backbone.testing import HeadConformance
from vit_backbone.testing.tools import Doubled, wake
from vit_heads_segformer import SegFormerHead


def plain_form(head, features):
    """As the paper and the feature pyramid say it: levels, projected, resampled, joined, fused."""
    levels = head.neck(features)
    size = levels[0].shape[-2:]
    projected = [project(level) for project, level in zip(head.projections, levels, strict=True)]
    fused = head.upsample(head.fuse(torch.cat([resized(p, size) for p in projected], dim=1)))
    logits = head.seg_layers[0](fused)
    height, width = features[0].shape[-2:]
    return logits[..., : height * head.scale, : width * head.scale]


def test_taps_that_are_a_pyramid_already_are_refused():
    """Whose channels are equal, as those of most pyramids."""
    taps = [torch.randn(1, 8, 24 // stride, 24 // stride) for stride in (1, 2, 4, 8)]
    with pytest.raises(UserError, match=r"sizes \[\(24, 24\), \(12, 12\).*neck='none'"):
        SegFormerHead([8] * 4, 2, 16, neck="pyramid")(taps, taps[0])
    SegFormerHead([8] * 4, 2, 16, neck="none")(taps, taps[0])


@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"upsample": "deconv"}], ids=str)
def test_the_folded_pyramid_equals_the_plain_form_in_values_and_gradients(grid, options):
    torch.manual_seed(0)
    head = SegFormerHead(
        [8] * 4, 3, hidden_size=16, dropout=0.0, neck="pyramid", **options
    ).double()
    taps = [torch.randn(2, 8, *grid, dtype=torch.double, requires_grad=True) for _ in range(4)]
    got, expected = head(taps, taps[0]), plain_form(head, taps)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    wanted, toward = [*head.parameters(), *taps], torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((got * toward).sum(), wanted),
        torch.autograd.grad((expected * toward).sum(), wanted),
        rtol=1e-7,
        atol=1e-9,
    )


@pytest.mark.parametrize("embed_dims", [[8, 8, 8], [8] * 5, [8, 16, 24, 32], []], ids=str)
def test_taps_that_make_no_pyramid_are_refused_when_built(embed_dims):
    with pytest.raises(UserError, match="four taps of the same channels"):
        SegFormerHead(embed_dims, 3, neck="pyramid")


def test_under_autocast_the_weights_are_composed_as_they_are_kept():
    torch.manual_seed(0)
    head = SegFormerHead([8] * 4, 3, hidden_size=16, dropout=0.0, neck="pyramid").eval()
    taps = [torch.randn(2, 8, 4, 4) for _ in range(4)]
    exact = plain_form(head, taps)
    with torch.autocast("cpu", torch.bfloat16):
        folded, plain = head(taps, taps[0]).float(), plain_form(head, taps).float()
    assert F.mse_loss(folded, exact) < 2 * F.mse_loss(plain, exact)


@pytest.mark.parametrize("grid", [(6, 4), (5, 7)])
def test_no_gradient_is_one_whose_layout_inductor_mistakes(grid):
    """Of replicated padding: a CPU lays it out as its input, tokens with channels last."""
    called = set()

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(str(function))
            return function(*args, **(kwargs or {}))

    taps = [torch.rand(2, *grid, 8).permute(0, 3, 1, 2).requires_grad_() for _ in range(4)]
    head = SegFormerHead([8] * 4, 2, hidden_size=8, neck="pyramid")
    with Noting():
        head(taps, torch.rand(2, 3, 16, 16)).sum().backward()
    assert "aten.convolution_backward.default" in called
    assert not [name for name in called if "replication_pad" in name]


def test_the_pyramid_costs_a_fifth_of_its_plain_form():
    """ViT-S at 256 px: 0.82 GFLOP instead of 4.28, and what composing the weights takes."""
    head = SegFormerHead([384] * 4, 3, neck="pyramid").to("meta")
    taps = [torch.empty(1, 384, 16, 16, device="meta")] * 4
    costs = []
    for call in (lambda: head(taps, taps[0]), lambda: plain_form(head, taps)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        costs.append(counter.get_total_flops() / 1e9)
    assert costs[0] < 1.5
    assert costs[1] == pytest.approx(4.28, abs=0.05)


class TestShortcutAndStem(HeadConformance):
    options = {  # noqa: RUF012
        "hidden_size": 16,
        "dropout": 0.0,
        "neck": "pyramid",
        "shortcut": True,
        "image_stem": True,
    }

    def make_head(self, embed_dim, num_classes):
        return SegFormerHead([embed_dim] * 4, num_classes, **self.options)

    def make_deep_head(self, embed_dim, num_classes):
        return SegFormerHead([embed_dim] * 4, num_classes, **self.options, auxiliary_outputs=True)


@pytest.mark.parametrize("neck", ["none", "pyramid"])
def test_with_shortcut_and_stem_the_head_begins_as_a_linear_probe(neck):
    options = {"neck": neck, "shortcut": True, "image_stem": True, "auxiliary_outputs": True}
    head = SegFormerHead([8] * 4, 3, hidden_size=16, **options).eval()
    head.deep_supervision = True
    taps, image = [torch.randn(1, 8, 3, 3) for _ in range(4)], torch.randn(1, 3, 48, 48)
    probe = head.shortcut.seg_layers[0](taps[-1])
    finest, coarse = head(taps, image)
    between = (12, 12) if neck == "pyramid" else (3, 3)
    torch.testing.assert_close(finest, resized(resized(probe, between), (48, 48)))
    torch.testing.assert_close(coarse, probe)
    wake(head)
    assert not torch.allclose(head(taps, image)[0], finest)


@pytest.mark.parametrize("name", ["neck.up4.3", "neck.up2", "projections.1", "fuse.0"])
def test_a_layer_that_was_replaced_is_called(name):
    """An adapter, or a parametrized layer, does more than its weight says."""
    torch.manual_seed(0)
    head = SegFormerHead([8] * 4, 3, hidden_size=16, neck="pyramid").eval()
    taps = [torch.randn(2, 8, 3, 5) for _ in range(4)]
    before = head(taps, taps[0])
    head.set_submodule(name, Doubled(head.get_submodule(name)))
    torch.testing.assert_close(head(taps, taps[0]), plain_form(head, taps))
    assert not torch.allclose(head(taps, taps[0]), before)


@pytest.mark.parametrize("name", ["neck.up4.3", "neck.up2", "projections.1", "fuse.0"])
def test_a_layer_whose_weight_a_hook_makes_is_called(name):
    torch.manual_seed(0)
    head = SegFormerHead([8] * 4, 3, hidden_size=16, neck="pyramid").eval()
    taps = [torch.randn(2, 8, 3, 5) for _ in range(4)]
    layer = head.get_submodule(name)
    prune.random_unstructured(layer, "weight", 0.5)
    before = head(taps, taps[0])
    layer.weight_orig.data.neg_()
    after = head(taps, taps[0])
    torch.testing.assert_close(after, plain_form(head, taps))
    assert not torch.allclose(after, before)
