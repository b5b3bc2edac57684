"""The parts that heads share: they begin at nothing, and lie where the image lies."""

import pytest
import torch

from vit_backbone import UserError, ViTSegmentationModel, find_head, head_options
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.heads.parts import ImageStem, Shortcut, check_taps
from vit_backbone.segmentation.geometry import resized
from vit_backbone.testing import FakeBackbone, HeadConformance, response_center
from vit_backbone.testing.tools import wake


class TestLinearHeadWithImageStem(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return LinearHead(embed_dim, num_classes, image_stem=True)


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (1, 1), (2, 1)])
def test_the_stem_begins_at_nothing_at_any_size(size):
    stem = ImageStem(3, 5, 4)
    image, guide, logits = (
        torch.randn(2, 3, *size),
        torch.randn(2, 5, 2, 3),
        torch.randn(2, 4, 2, 3),
    )
    assert torch.equal(stem(image, guide, logits), resized(logits, size))
    wake(stem)
    assert not torch.equal(stem(image, guide, logits), resized(logits, size))


@pytest.mark.parametrize("size", [(64, 80), (65, 81)])
def test_the_stem_alone_lies_where_the_image_lies(size):
    torch.manual_seed(0)
    stem = ImageStem(3, 5, 4).eval()
    wake(stem)
    zeros = torch.zeros(1, 5, 4, 5), torch.zeros(1, 4, 4, 5)
    for y, x in ((16, 16), (50, 60)):
        center = response_center(lambda image: stem(image, *zeros), size, (y, x))
        assert max(abs(center[0] - y), abs(center[1] - x)) < 1, center


def test_a_stem_without_an_image_says_so():
    head = LinearHead(8, 2, image_stem=True)
    with pytest.raises(UserError, match="no image came, and the head looks at its pixels"):
        head([torch.randn(1, 8, 2, 2)] * 4, None)


def test_images_and_taps_of_several_batches_are_refused():
    """Broadcasting would make one image's features speak of all."""
    head, taps = LinearHead(8, 2, image_stem=True), [torch.randn(1, 8, 2, 2)] * 4
    with pytest.raises(UserError, match="3 images came with taps of 1"):
        head(taps, torch.randn(3, 3, 32, 32))
    with pytest.raises(UserError, match=r"taps of the batches \[2, 2, 2, 1\]"):
        check_taps([torch.randn(2, 8, 2, 2)] * 3 + taps[:1], 4)


def test_the_stem_has_under_40k_parameters_on_a_large_vit():
    assert sum(p.numel() for p in ImageStem(3, 1024, 4).parameters()) < 40_000


def test_a_step_opens_the_gate_and_the_next_reaches_what_is_behind_it():
    torch.manual_seed(0)
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2, image_stem=True)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    behind = [p for n, p in model.head.image_stem.named_parameters() if "seg_layers" not in n]
    reached = []
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        reached.append([bool(p.grad.any()) for p in behind])
        optimizer.step()
    assert not any(reached[0])
    assert all(reached[1])


def test_the_shortcut_is_the_linear_probe_under_every_output():
    shortcut, taps = Shortcut(8, 3), [torch.randn(2, 8, 2, 3) for _ in range(4)]
    outputs = [torch.zeros(2, 3, 8, 12), torch.randn(2, 3, 2, 3)]
    probe = shortcut.seg_layers[0](taps[-1])
    got = shortcut(taps, outputs)
    torch.testing.assert_close(got[0], resized(probe, (8, 12)))
    torch.testing.assert_close(got[1], outputs[1] + probe)


def test_the_linear_factory_has_the_stem_as_its_option():
    factory = find_head("linear")
    assert list(head_options(factory)) == ["image_stem"]
    assert not head_options(factory)["image_stem"].default
    model = factory("test_vit", num_classes=3, pretrained=False, in_channels=2, image_stem=True)
    assert model(torch.randn(1, 2, 33, 20)).shape == (1, 3, 33, 20)
