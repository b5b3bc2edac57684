"""The normalisation inside of a network: what the pretrained ViT expects of an image."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from vit_backbone.errors import UserError


class InputNorm(nn.Module):
    """Shift and scale image channels, after an optional clamp: what the pretrained ViT expects.

    The statistics are part of the architecture, not of the weights (plans carry them), and plain
    numbers: buffers that no state dict holds would stay on the meta device, or be made empty.

    Args:
        mean: one value for all channels, or one per channel.
        std: likewise, above 0.
        clamp: (lowest, highest) value before that; ``None`` does not clamp.
        channels: of the images, to check the statistics against; ``None`` where not known.

    Raises:
        UserError: statistics of another number of channels, or impossible ones.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        clamp: Sequence[float] | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.std = _numbers("mean", mean), _numbers("std", std)
        self.clamp = None if clamp is None else _numbers("clamp", clamp)
        if min(self.std) <= 0:
            raise UserError(f"input_norm std {list(self.std)}: it must be above 0")
        if self.clamp is not None and (len(self.clamp) != 2 or self.clamp[0] >= self.clamp[1]):
            raise UserError(f"input_norm clamp {list(self.clamp)}: [lowest, highest] is expected")
        if channels is not None:
            self._refuse_other_channels(channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W); whole numbers become torch's default floats."""
        self._refuse_other_channels(image.shape[1])
        dtype = image.dtype if image.is_floating_point() else torch.get_default_dtype()
        image = image.to(dtype)
        if self.clamp is not None:
            image = image.clamp(*self.clamp)
        mean, std = (
            torch.tensor(values, dtype=dtype, device=image.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return (image - mean) / std

    def _refuse_other_channels(self, channels: int) -> None:
        """Refuse what broadcasting would turn into an image of as many channels as statistics."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UserError(
                    f"input_norm {name} has {len(values)} values and the image {channels} "
                    f"channels; give 1 or {channels}"
                )


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError(f"input_norm {name} {values!r}: a list of finite numbers is expected")
    return numbers
