"""Which blocks a head taps. No torch here: configs are checked against this."""

from collections.abc import Sequence
from numbers import Integral

from vit_backbone.errors import UserError


def layer_indices(depth: int) -> list[int]:
    """Choose the four blocks that a head taps: the last block of each quarter.

    Args:
        depth: number of blocks, at least 4.

    Raises:
        UserError: fewer than 4 blocks.
    """
    if depth < 4:
        raise UserError(f"a backbone with {depth} blocks cannot be tapped at four; give indices")
    return [depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1]


LAYER_INDICES: dict[int, list[int]] = {depth: layer_indices(depth) for depth in (12, 24, 32, 40)}
"""Number of blocks -> the four tapped blocks; `layer_indices` is the rule for any other depth."""

LAYER_PRESETS: dict[str, dict[int, list[int]]] = {
    # What the DINOv3 release's dense heads tap: of ViT-L other blocks than the quarters' last.
    "dinov3": {**LAYER_INDICES, 24: [4, 11, 17, 23]},
}
"""Name of a choice of taps -> number of blocks -> the four tapped blocks."""


def resolve_taps(taps: Sequence[int] | str | None, depth: int) -> list[int]:
    """Turn a choice of taps into blocks.

    Args:
        taps: blocks (negative ones count from the end), a name of `LAYER_PRESETS`, or ``None``
            for `layer_indices`.
        depth: number of blocks.

    Raises:
        UserError: an unknown name, a depth that the preset does not know, no numbers, none at all,
            or no such block.
    """
    if taps is None:
        return layer_indices(depth)
    if isinstance(taps, str):
        if taps not in LAYER_PRESETS:
            raise UserError(f"layer_indices {taps!r}: there is {', '.join(LAYER_PRESETS)}")
        if depth not in LAYER_PRESETS[taps]:
            raise UserError(f"layer_indices {taps!r} is not for a backbone of {depth} blocks")
        return list(LAYER_PRESETS[taps][depth])
    if not isinstance(taps, Sequence) or not all(isinstance(i, Integral) for i in taps):
        raise UserError(f"indices {taps!r}: whole numbers, of blocks, are expected")
    if not taps:
        raise UserError(f"indices {taps!r}: at least one block is expected")
    outside = [i for i in taps if not -depth <= i < depth]
    if outside:
        raise UserError(
            f"indices {outside} are outside of {depth} blocks ({-depth} to {depth - 1})"
        )
    return list(taps)
