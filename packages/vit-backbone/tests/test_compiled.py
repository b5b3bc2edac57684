"""torch.compile of backbones: no graph per size, and timm's own answers."""

import pytest
import timm
import torch

from vit_backbone import create_backbone, find_head
from vit_backbone.testing.tools import CountingCompiler
from vit_backbone.vits.patches import TraceablePatchEmbed

BACKBONES = {
    "test_vit": ("test_vit", None),
    "dinov3": ("dinov3", "small"),
    "dinov2": ("dinov2", "small"),
}


def shallow_model(name):
    model = find_head("linear")(
        *BACKBONES[name], num_classes=2, pretrained=False, use_lora=True, lora_dropout=0.0
    ).eval()
    del model.backbone.blocks[4:]
    model.indices = None
    return model


@pytest.mark.parametrize("name", BACKBONES)
def test_no_size_equals_eager_by_a_graph_of_its_own(name):
    """Sides that vary are compiled once; how they are padded is decided in the graph."""
    model, counting = shallow_model(name), CountingCompiler()
    patch = model.backbone.patch_embed.patch_size[0]
    torch.compiler.reset()
    compiled = torch.compile(model, backend=counting, fullgraph=True)
    with torch.inference_mode():
        for grid in ((4, 4), (5, 4), (5, 6)):
            compiled(torch.randn(2, 3, patch * grid[0], patch * grid[1]))
        known = counting.graphs
        for grid in ((7, 8), (6, 9)):
            image = torch.randn(3, 3, patch * grid[0], patch * grid[1])
            compiled_logits = compiled(image)
            torch.testing.assert_close(compiled_logits, model(image), rtol=1e-4, atol=1e-5)
    assert known <= 3
    assert counting.graphs <= known + 1  # another batch


@pytest.mark.parametrize("name", BACKBONES)
def test_patches_are_timms_own(name):
    backbone, patch, timm_name = create_backbone(*BACKBONES[name], pretrained=False)
    assert type(backbone.patch_embed) is TraceablePatchEmbed
    stock = timm.create_model(timm_name, num_classes=0, dynamic_img_size=True).patch_embed
    stock.load_state_dict(backbone.patch_embed.state_dict())
    image = torch.randn(2, 3, 3 * patch, 5 * patch)
    assert torch.equal(backbone.patch_embed(image), stock(image))


@pytest.mark.parametrize("name", BACKBONES)
def test_broken_patches_are_refused_by_the_backbone_too(name):
    """Whoever calls it directly would get fewer patches, without a word."""
    backbone, patch, _ = create_backbone(*BACKBONES[name], pretrained=False)
    for sides in ((3 * patch - 1, patch), (patch, 2 * patch + 1)):
        with pytest.raises(ValueError, match=f"{sides[0]}x{sides[1]} is no whole number"):
            backbone.forward_features(torch.randn(1, 3, *sides))
