"""The module of the linear head; `linear` holds its factory."""

from collections.abc import Sequence

import torch
from torch import nn

from vit_backbone.errors import UserError

from .parts import ImageStem


class LinearHead(nn.Module):
    """Classify each patch token of the last tap.

    The taps are normed already, so there is no norm of its own (DINOv2 puts a BatchNorm there).

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
        image_stem: correct the logits by the image's pixels, see `ImageStem`.
        image_channels: channels of the image, for ``image_stem``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        *,
        image_stem: bool = False,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.seg_layers = nn.ModuleList([nn.Conv2d(embed_dim, num_classes, kernel_size=1)])
        self.image_stem: ImageStem | None = None
        if image_stem:
            self.image_stem = ImageStem(image_channels, embed_dim, num_classes)

    def forward(self, features: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, h, w) taps into logits of the last, the others are not looked at.

        Returns:
            (B, K, h, w); with ``image_stem`` (B, K, H, W) of the image's size.

        Raises:
            UserError: no taps, or with ``image_stem`` no image.
        """
        if not features:
            raise UserError("0 taps came, and the head takes the last")
        logits = self.seg_layers[0](features[-1])
        return logits if self.image_stem is None else self.image_stem(image, features[-1], logits)
