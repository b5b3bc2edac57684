"""The tokens of tiles behind some blocks of a frozen backbone.

C: channels, H, W: tile, h, w: its patches, T: blocks, D: width of a token.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from vit_backbone import PlainViT, UserError, get_vit_features, pack_linears
from vit_backbone.segmentation.geometry import pad_to_patches

from .tiles import Tile


class Tokens(NamedTuple):
    """The tokens of all tiles.

    Attributes:
        tokens: of each tile (h, w, T, D), float16.
        seconds: of a tile, the median.
    """

    tokens: list[np.ndarray]
    seconds: float


@torch.inference_mode()
def tokens_of(
    backbone: PlainViT,
    input_norm: nn.Module | None,
    tiles: Sequence[Tile],
    blocks: Sequence[int],
    device: str,
    on_tile: Callable[[], None] = lambda: None,
) -> Tokens:
    """Take the patch tokens of tiles as a head gets them: padded to whole patches, final-normed.

    Args:
        backbone: in evaluation mode; on a CPU its linear layers are packed.
        input_norm: see `ViTSegmentationModel`.
        tiles: of one size.
        blocks: to tap.
        device: to compute on.
        on_tile: called after each tile.

    Raises:
        UserError: features that are not finite.
    """
    backbone.to(device)
    pack_linears(backbone)
    found, seconds = [], []
    for tile in tiles:
        begun = time.perf_counter()
        batch = torch.from_numpy(tile.image)[None].to(device)
        if input_norm is not None:
            batch = input_norm(batch)
        padded = pad_to_patches(batch, backbone.patch_embed.patch_size)
        maps = get_vit_features(backbone, padded, blocks)
        tokens = torch.stack([of[0] for of in maps]).permute(2, 3, 0, 1)
        found.append(tokens.to(torch.float16).cpu().numpy())  # waits for the device
        if not np.isfinite(found[-1]).all():
            raise UserError(f"its features of {tile.name} are not finite")
        seconds.append(time.perf_counter() - begun)
        on_tile()
    return Tokens(found, float(np.median(seconds)))
