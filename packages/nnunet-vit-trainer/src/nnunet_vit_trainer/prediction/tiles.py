"""The sliding window of nnU-Net, taken apart: which tiles, and how their logits are put together.

Everything is computed in the order and the precision of nnU-Net's own predictor, so that only the
network's rounding in larger batches can differ.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from vit_backbone import UserError

Tile = tuple[slice | int, ...]


def tiles_of(shape: Sequence[int], tile_size: Sequence[int], step: float) -> list[Tile]:
    """List the tiles of an image, slice by slice.

    Args:
        shape: (slices, height, width), at least the tile's height and width.
        tile_size: (height, width).
        step: distance of tiles as a share of their size, above 0, at most 1.
    """
    rows, columns = compute_steps_for_sliding_window(tuple(shape[1:]), tuple(tile_size), step)
    height, width = tile_size
    return [
        (slice(None), index, slice(row, row + height), slice(column, column + width))
        for index in range(shape[0])
        for row in rows
        for column in columns
    ]


def mirrors_of(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """List what a tile is flipped along before it is predicted, the first time along nothing.

    Args:
        axes: that the model was trained to be mirrored along, 0 is the height; ``None`` is none.
    """
    of_batch = [axis + 2 for axis in axes or ()]
    counts = range(len(of_batch) + 1)
    return [flips for n in counts for flips in itertools.combinations(of_batch, n)]


class Canvas:
    """A case on its way: its padded image, and the logits of the tiles that came back so far.

    Args:
        image: (C, slices, height, width), preprocessed.
        tile_size: (height, width).
        step: see `tiles_of`.
        num_outputs: output channels of the network.
        members: networks of the ensemble; each has logits of its own until the end, as in nnU-Net.
        device: where the logits are summed; on the CPU where its memory is too small for them.
    """

    def __init__(
        self,
        image: torch.Tensor,
        tile_size: Sequence[int],
        step: float,
        num_outputs: int,
        members: int,
        device: torch.device,
    ) -> None:
        padded, self._unpad = pad_nd_image(image, tuple(tile_size), "constant", {"value": 0}, True)
        self.image = torch.as_tensor(padded)
        self.tiles = tiles_of(self.image.shape[1:], tile_size, step)
        self._gaussian = compute_gaussian(
            tuple(tile_size), sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
        )
        self._sums: list[torch.Tensor] = []  # as large as all classes of the image, so not before
        self._num_outputs, self._members = num_outputs, members
        self._total = self._missing = len(self.tiles) * members
        self._result: torch.Tensor | Exception | None = None

    @property
    def share_done(self) -> float:
        """How much of the case is predicted, 0 to 1."""
        return 1 - self._missing / self._total

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to come: all tiles are there, or it failed."""
        return self._result is not None

    def tile(self, tile: Tile) -> torch.Tensor:
        """Cut out a tile, (C, height, width)."""
        return self.image[tile]

    def add(self, tile: Tile, member: int, logits: torch.Tensor) -> None:
        """Add a tile's logits, (K, height, width); with the last one the device is left."""
        if not self._sums:
            self._begin()
        self._sums[member][tile] += logits.to(self._gaussian.device).mul_(self._gaussian)
        if member == 0:
            self._weights[tile[1:]] += self._gaussian
        self._missing -= 1
        if not self._missing:
            self._result = self._mean()
            self._sums = []

    def fail(self, error: Exception) -> None:
        """Give the case up: `result` raises the error."""
        self._result, self._sums, self._missing = error, [], 0

    def result(self) -> torch.Tensor:
        """Return the members' mean logits, (K, slices, height, width), half, on the CPU.

        Raises:
            UserError: a logit that is not finite in half precision.
            Exception: why the case failed.
        """
        assert self._result is not None  # it is complete
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def _begin(self) -> None:
        try:
            self._sums, self._weights = self._zeros()
        except torch.OutOfMemoryError:
            self._gaussian = self._gaussian.cpu()  # as in nnU-Net
        if not self._sums:
            torch.cuda.empty_cache()
            self._sums, self._weights = self._zeros()

    def _zeros(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        shape = self.image.shape[1:]
        half: dict[str, Any] = {"dtype": torch.half, "device": self._gaussian.device}
        sums = [torch.zeros((self._num_outputs, *shape), **half) for _ in range(self._members)]
        return sums, torch.zeros(shape, **half)

    def _mean(self) -> torch.Tensor:
        mean: torch.Tensor | None = None
        for logits in self._sums:
            whole = torch.div(logits, self._weights, out=logits).cpu()
            if not torch.isfinite(whole).all():  # no class is the largest where one is NaN
                raise UserError("the network's logits are NaN or infinite in half precision")
            own = whole[(slice(None), *self._unpad[1:])]
            mean = own if mean is None else mean.add_(own)
        assert mean is not None  # there is a member
        if self._members > 1:
            mean /= self._members
        return mean
