"""What a patch shows: the share of each label in it.

No patch has one label alone. A class that never fills half of a patch would vanish if the most
frequent label were taken for the patch's; its share does not.

H, W: tile, h, w: its patches, K: labels.
"""

from typing import NamedTuple

import numpy as np

from .tiles import UNKNOWN


class Shares(NamedTuple):
    """The labels in the patches of a tile.

    Attributes:
        shares: (h, w, K), of the pixels that have a label; 0 where none of a patch has.
        known: (h, w), the share of a patch's pixels that have a label.
    """

    shares: np.ndarray
    known: np.ndarray


def shares_of(labels: np.ndarray, patch_size: int, count: int) -> Shares:
    """Count the labels in each patch; the padding to whole patches has none.

    Args:
        labels: (H, W), see `Tile`.
        patch_size: side of a patch in pixels.
        count: K.
    """
    below, right = (-side % patch_size for side in labels.shape)
    padded = np.pad(labels, ((0, below), (0, right)), constant_values=UNKNOWN)
    height, width = (side // patch_size for side in padded.shape)
    patches = padded.reshape(height, patch_size, width, patch_size)
    counted = np.stack([(patches == k).sum(axis=(1, 3)) for k in range(count)], axis=-1)
    known = counted.sum(axis=-1)
    shares = counted / np.maximum(known, 1)[..., None]
    return Shares(shares.astype(np.float32), (known / patch_size**2).astype(np.float32))
