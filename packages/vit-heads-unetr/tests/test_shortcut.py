"""The UNETR head with what it may add to a linear probe: it begins as one."""

import torch

from vit_backbone.segmentation.geometry import resized
from vit_backbone.testing import HeadConformance
from vit_backbone.testing.tools import wake
from vit_heads_unetr import UNETRHead

CHANNELS = (12, 8, 6, 4, 4)
BOTH = {"shortcut": True, "image_stem": True}


class TestShortcutAndStem(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, **BOTH)

    def make_deep_head(self, embed_dim, num_classes):
        return UNETRHead(embed_dim, num_classes, CHANNELS, **BOTH, auxiliary_outputs=True)


def test_with_shortcut_and_stem_every_output_begins_as_the_linear_probe():
    head = UNETRHead(8, 3, CHANNELS, **BOTH, auxiliary_outputs=True).eval()
    head.deep_supervision = True
    taps, image = [torch.randn(1, 8, 2, 3) for _ in range(4)], torch.randn(1, 3, 28, 42)
    probe = head.shortcut.seg_layers[0](taps[-1])
    outputs = head(taps, image)
    # Patches of 14 px: the decoder answers at 16/14 of the image, the stem at the image's size.
    sizes = [(28, 42), (16, 24), (8, 12), (4, 6)]
    for output, size, decoded in zip(outputs, sizes, [(32, 48), *sizes[1:]], strict=True):
        torch.testing.assert_close(output, resized(resized(probe, decoded), size))
    wake(head)
    assert not any(torch.allclose(a, b) for a, b in zip(head(taps, image), outputs, strict=True))


def test_without_them_nothing_of_them_is_built():
    plain, both = UNETRHead(8, 3, CHANNELS), UNETRHead(8, 3, CHANNELS, **BOTH)
    added = both.state_dict().keys() - plain.state_dict().keys()
    assert not plain.state_dict().keys() - both.state_dict().keys()
    assert {name.partition(".")[0] for name in added} == {"shortcut", "image_stem"}
