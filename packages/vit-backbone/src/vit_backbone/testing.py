"""For the tests of heads: a fake backbone that fits on a screen, and a suite to inherit.

::

    from vit_backbone.testing import HeadConformance
    from my_head import MyHead

    class TestMyHead(HeadConformance):
        def make_head(self, embed_dim, num_classes):
            return MyHead(embed_dim, num_classes)

pytest is needed here and nowhere else in the package.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from .model import ViTSegmentationModel

# A size of whole patches, ones that need padding on either side, one below a patch, a line.
SIZES = ((32, 48), (33, 50), (97, 31), (5, 7), (1, 40))


class FakeBackbone(nn.Module):
    """A ViT's outside without its inside: a patch embedding and four 1x1 'blocks'.

    Args:
        embed_dim: channels of the taps.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
    """

    def __init__(self, embed_dim: int = 8, patch_size: int = 16, in_chans: int = 3) -> None:
        super().__init__()
        self.num_features = embed_dim
        self.patch_embed = nn.Module()
        self.patch_embed.patch_size = (patch_size, patch_size)
        self.patch_embed.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.blocks = nn.ModuleList(nn.Conv2d(embed_dim, embed_dim, 1) for _ in range(4))

    def forward_intermediates(
        self, image: torch.Tensor, indices: Sequence[int], **options: object
    ) -> list[torch.Tensor]:
        """Return the wanted blocks' outputs, in the order of the blocks, as timm does."""
        maps, x = [], self.patch_embed.proj(image)
        for block in self.blocks:
            x = torch.tanh(block(x))
            maps.append(x)
        return [maps[i] for i in indices]


class HeadConformance:
    """What every head keeps, whatever it does inside. Inherit it and define `make_head`."""

    num_classes = 3
    embed_dim = 8

    def make_head(self, embed_dim: int, num_classes: int) -> nn.Module:
        """Build the head under test, small, for four taps of ``embed_dim`` channels.

        Raises:
            AttributeError: the subclass forgot it.
        """
        raise AttributeError("define make_head(embed_dim, num_classes) in the subclass")

    def make_deep_head(self, embed_dim: int, num_classes: int) -> nn.Module | None:
        """Build the head with its auxiliary outputs; ``None`` for a head that has none."""
        return None

    def make_model(self, patch_size: int = 16) -> ViTSegmentationModel:
        """Join the head under test and a fake backbone, in evaluation mode, with fixed weights."""
        torch.manual_seed(0)
        head = self.make_head(self.embed_dim, self.num_classes)
        return ViTSegmentationModel(FakeBackbone(self.embed_dim, patch_size), head).eval()

    @pytest.mark.parametrize("patch_size", [14, 16])
    @pytest.mark.parametrize("size", SIZES)
    def test_any_size_in_the_same_size_out(self, size: tuple[int, int], patch_size: int) -> None:
        logits = self.make_model(patch_size)(torch.randn(2, 3, *size))
        assert logits.shape == (2, self.num_classes, *size)
        assert logits.isfinite().all()

    @pytest.mark.parametrize("patch_size", [14, 16])
    def test_output_lies_where_the_input_lies(self, patch_size: int) -> None:
        """A bump in the image moves the logits there, not 14 % beside it."""
        model = self.make_model(patch_size)
        for y, x in ((40, 40), (190, 60), (100, 200)):
            center = response_center(model, (250, 260), (y, x))
            assert max(abs(center[0] - y), abs(center[1] - x)) < patch_size / 2 + 2, (y, x, center)

    def test_every_trainable_parameter_gets_a_gradient(self) -> None:
        model = self.make_model().train()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without

    def test_evaluation_is_deterministic(self) -> None:
        model, image = self.make_model(), torch.randn(1, 3, 40, 40)
        assert torch.equal(model(image), model(image))

    def test_state_dict_goes_round(self) -> None:
        model, image = self.make_model(), torch.randn(1, 3, 40, 40)
        torch.manual_seed(1)
        other = ViTSegmentationModel(
            FakeBackbone(self.embed_dim), self.make_head(self.embed_dim, self.num_classes)
        ).eval()
        assert not torch.equal(model(image), other(image))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(image), other(image))

    @pytest.mark.parametrize("size", [(32, 48), (33, 50), (97, 31)])
    def test_deep_supervision_gives_nnunets_sizes_finest_first(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        head = self.make_deep_head(self.embed_dim, self.num_classes)
        if head is None:
            plain = self.make_head(self.embed_dim, self.num_classes)
            assert len(getattr(plain, "deep_supervision_scales", (1.0,))) == 1
            return
        model = ViTSegmentationModel(FakeBackbone(self.embed_dim), head).eval()
        image = torch.randn(2, 3, *size)
        plain = model(image)
        head.deep_supervision = True
        outputs = model(image)
        assert torch.equal(outputs[0], plain)
        sizes = [tuple(output.shape[-2:]) for output in outputs]
        assert sizes == [
            tuple(max(1, round(side * scale)) for side in size)
            for scale in head.deep_supervision_scales
        ]
        assert len(outputs) > 1
        sum(output.square().mean() for output in outputs).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without

    def test_bfloat16_autocast_is_finite(self) -> None:
        model = self.make_model().train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.randn(2, 3, 48, 48))
        logits.float().square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert logits.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)

    def test_nnunet_finds_no_initialize_and_its_seg_layers(self) -> None:
        """nnU-Net applies any ``initialize``, and skips only ``.seg_layers.`` when fine-tuning."""
        model = self.make_model()
        assert not [n for n, module in model.named_modules() if hasattr(module, "initialize")]
        classifiers = [n for n, p in model.named_parameters() if ".seg_layers." in n]
        assert classifiers
        assert all(model.get_parameter(n).shape[0] == self.num_classes for n in classifiers)


def response_center(
    model: nn.Module, size: tuple[int, int], position: tuple[int, int]
) -> tuple[float, float]:
    """Say where a model's output answers to a change of one input pixel.

    The gradient of the output with respect to the input says which pixels a pixel of the output
    listens to; over a square of outputs around a position, the centre of mass of that
    gradient is where the square really looks.

    Args:
        model: an image model, same size in and out.
        size: image height and width.
        position: centre (y, x) of the square of outputs.

    Returns:
        The centre of mass (y, x) in input pixels.
    """
    torch.manual_seed(0)
    image = torch.randn(1, 3, *size, requires_grad=True)
    y, x = position
    logits = model(image)
    ticks = torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(0))
    seen = logits[0, :, y - 8 : y + 9, x - 8 : x + 9]
    (seen * ticks[:, None, None]).sum().backward()
    mass = image.grad[0].abs().sum(0)
    mass = mass * (mass > 0.1 * mass.max())
    rows, columns = torch.arange(size[0]) + 0.0, torch.arange(size[1]) + 0.0
    return (
        float((mass.sum(1) * rows).sum() / mass.sum()),
        float((mass.sum(0) * columns).sum() / mass.sum()),
    )
