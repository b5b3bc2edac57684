"""The network's part: batches across tiles, mirrors and cases, for every member of an ensemble."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from vit_backbone import UserError

from .tiles import Canvas, Tile

_Piece = tuple[Canvas, Tile, tuple[int, ...]]


@torch.inference_mode()
def predicted(
    canvases: Iterable[Canvas],
    networks: Sequence[nn.Module],
    mirrors: Sequence[tuple[int, ...]],
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[Canvas], None] = lambda canvas: None,
) -> Iterator[Canvas]:
    """Predict every tile of cases, and give each case back, in their order, once it is complete.

    Args:
        canvases: the cases; they are asked for one by one, as batches have room.
        networks: members of the ensemble, on the device, in evaluation mode.
        mirrors: see `mirrors_of`.
        batch_size: tiles, flipped or not, that a network sees at once; halved where the device's
            memory is too small.
        device: of the networks.
        on_batch: is told after each batch which case its last tile is of.

    What a network or a canvas fails at is raised by `Canvas.result` of the cases that it concerns;
    the others go on.
    """
    pieces = (
        (canvas, tile, flips)
        for canvas in canvases
        for tile in canvas.tiles
        for flips in mirrors
        if not canvas.is_complete  # it may have failed on the way
    )
    sums = [torch.empty(0)] * len(networks)  # of the tile that is in the making
    while batch := list(itertools.islice(pieces, batch_size)):
        cases = dict.fromkeys(canvas for canvas, _, _ in batch)
        try:
            images = [_flipped(canvas.tile(tile), flips) for canvas, tile, flips in batch]
            outputs = _answers(networks, torch.stack(images).to(device))
        except Exception as error:  # of a network, which has seen them together
            for canvas in cases:
                canvas.fail(error)
        else:
            for piece, *logits in zip(batch, *outputs, strict=True):
                _take(piece, logits, sums, mirrors)
        yield from (canvas for canvas in cases if canvas.is_complete)
        on_batch(batch[-1][0])


def _answers(networks: Sequence[nn.Module], images: torch.Tensor) -> list[torch.Tensor]:
    return [in_halves(network, images) for network in networks]


def _take(
    piece: _Piece,
    logits: Sequence[torch.Tensor],
    sums: list[torch.Tensor],
    mirrors: Sequence[tuple[int, ...]],
) -> None:
    """Take the members' answers; of what fails in it, as for memory, the case fails."""
    canvas = piece[0]
    try:
        for member, own in enumerate(logits):
            if not canvas.is_complete:
                _add(piece, member, own, sums, mirrors)
    except Exception as error:
        canvas.fail(error)


def _add(
    piece: _Piece,
    member: int,
    logits: torch.Tensor,
    sums: list[torch.Tensor],
    mirrors: Sequence[tuple[int, ...]],
) -> None:
    """Take one answer; with the last of a tile's mirrors their mean goes to the canvas."""
    canvas, tile, flips = piece
    logits = _flipped(logits, flips)
    # In nnU-Net's order, since sums of floats depend on it. Only one tile is in the making.
    sums[member] = logits if flips == mirrors[0] else sums[member].add_(logits)
    if flips == mirrors[-1]:
        canvas.add(tile, member, sums[member].div_(len(mirrors)))


def _flipped(tile: torch.Tensor, flips: tuple[int, ...]) -> torch.Tensor:
    """Flip a tile without its batch axis, which `mirrors_of` counts."""
    return torch.flip(tile, [axis - 1 for axis in flips]) if flips else tile


def in_halves(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Run a network, on half of the batch where the device's memory is too small for all of it.

    Args:
        network: to run, under nnU-Net's autocast on CUDA.
        images: (B, C, H, W), on the network's device.

    Raises:
        UserError: the memory is too small for one image.
    """
    try:
        with torch.autocast("cuda", enabled=images.device.type == "cuda"):
            return network(images)
    except torch.OutOfMemoryError:
        pass  # it holds the network's tensors until here
    torch.cuda.empty_cache()
    if len(images) == 1:
        height, width = images.shape[-2:]
        raise UserError(
            f"the device's memory is too small for one tile of {height} x {width} px; use "
            "-device cpu, or end what else runs on the device"
        )
    return torch.cat([in_halves(network, half) for half in images.tensor_split(2)])
