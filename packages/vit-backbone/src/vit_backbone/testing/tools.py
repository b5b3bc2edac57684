"""What the suite of `vit_backbone.testing` works with, usable in tests of one's own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class FakeEmbedding(nn.Module):
    """The patch embedding of a `FakeBackbone`, which has its arguments."""

    def __init__(self, embed_dim: int, patch_size: int, in_chans: int) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)


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
        self.patch_embed = FakeEmbedding(embed_dim, patch_size, in_chans)
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
    (gradient,) = torch.autograd.grad((seen * ticks[:, None, None]).sum(), image)
    mass = gradient[0].abs().sum(0)
    mass = mass * (mass > 0.1 * mass.max())
    rows, columns = torch.arange(size[0]) + 0.0, torch.arange(size[1]) + 0.0
    return (
        float((mass.sum(1) * rows).sum() / mass.sum()),
        float((mass.sum(0) * columns).sum() / mass.sum()),
    )


def parameters_without_gradient(model: nn.Module) -> list[str]:
    """Return the names of the trainable parameters whose gradient is missing or all zero."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]


def wake(module: nn.Module) -> None:
    """Give convolutions and linear layers whose weights are all zero random ones, in place.

    Such a layer is a gate that a head begins with, closed; a training step opens it.
    """
    layers: list[Any] = list(module.modules())  # of any class
    for layer in layers:
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim > 1 and not weight.any():
            layer.reset_parameters()


class Doubled(nn.Module):
    """What came in the place of a layer, as an adapter does: twice the layer's answer.

    Args:
        layer: the one that stood there.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer as the layer, doubled."""
        return 2 * self.layer(x)


class CountingCompiler:
    """A backend for `torch.compile` that runs what it is given, and counts it.

    Attributes:
        graphs: so many were given: one, and one more for each recompilation and graph break.
    """

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: nn.Module, inputs: Sequence[torch.Tensor]) -> nn.Module:
        """Compile nothing."""
        self.graphs += 1
        return graph


@contextmanager
def one_process_group() -> Iterator[None]:
    """Hold a gloo process group of this process alone: all that DDP needs, and no port."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
