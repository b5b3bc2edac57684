"""Which precision the network runs in under float16 autocast, also when it is compiled."""

import pytest
import torch

from vit_backbone import ViTSegmentationModel
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.segmentation.precision import instead_of_float16
from vit_backbone.testing import FakeBackbone


def test_emulated_bfloat16_does_not_count(monkeypatch):
    asked = []

    def is_supported(including_emulation=True):
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float16)
    with instead_of_float16("cuda", "bfloat16") as changed:
        assert changed is None
    assert asked == [False]


@pytest.mark.parametrize("float16_as", ["bfloat16", "float32", "float16"])
def test_a_validation_under_float16_is_one_graph(float16_as):
    """As nnU-Net's validation: compiled, and called under float16 autocast."""
    torch.compiler.reset()
    head = LinearHead(8, 2)
    seen = []
    head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    model = ViTSegmentationModel(FakeBackbone(8), head, float16_as=float16_as).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        got, expected = compiled(image), model(image)
    torch.testing.assert_close(got, expected)
    assert seen[-1] == getattr(torch, float16_as)


def test_what_dynamo_cannot_ask_is_a_constant_to_it(monkeypatch):
    """A CUDA device is asked for through torch.cuda's properties, which break a graph."""

    def is_supported(including_emulation=True):
        torch._dynamo.graph_break()
        return True

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)

    def forward(x):
        # What `instead_of_float16` does on CUDA, on a machine without.
        from vit_backbone.segmentation.precision import cuda_has_bfloat16

        return x + 1 if cuda_has_bfloat16() else x - 1

    torch.compiler.reset()
    compiled = torch.compile(forward, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)).item() == 1


@pytest.mark.gpu
@pytest.mark.parametrize("float16_as", ["bfloat16", "float32", "float16"])
def test_a_validation_under_float16_is_one_graph_on_cuda(float16_as):
    torch.compiler.reset()
    model = ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2), float16_as=float16_as)
    compiled = torch.compile(model.cuda().eval(), backend="aot_eager", fullgraph=True)
    image = torch.randn(1, 3, 32, 48, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.float16):
        torch.testing.assert_close(compiled(image), model(image), rtol=1e-2, atol=1e-2)
