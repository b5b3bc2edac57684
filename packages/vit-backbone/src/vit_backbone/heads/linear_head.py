"""The module of the linear head; `linear` holds its factory."""

from collections.abc import Sequence

import torch
from torch import nn


class LinearHead(nn.Module):
    """Classify each patch token of the last tap.

    The taps are normed already, so there is no norm of its own (DINOv2 puts a BatchNorm there).

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
    """

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.seg_layers = nn.ModuleList([nn.Conv2d(embed_dim, num_classes, kernel_size=1)])

    def forward(self, features: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, h, w) taps into logits (B, K, h, w) of the last; the image is not used."""
        return self.seg_layers[0](features[-1])
