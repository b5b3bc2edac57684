"""Which blocks are tapped, in words. No torch: a mistake is told before anything is read."""

from vit_backbone import LAYER_PRESETS, UserError, shorten

LAST, FOUR = "last", "four"


def layer_indices_of(taps: str) -> list[int] | str | None:
    """Say a choice of taps as ``model.layer_indices`` does.

    Args:
        taps: ``last``, ``four`` (the last block of each quarter), the name of a preset, or four
            blocks with commas between them.

    Raises:
        UserError: neither a word, nor four numbers.
    """
    if taps == FOUR:
        return None
    if taps == LAST:
        return [-1] * 4
    if taps in LAYER_PRESETS:
        return taps
    try:
        blocks = [int(word) for word in taps.split(",")]
    except ValueError:
        blocks = []
    if len(blocks) != 4:
        words = ", ".join((LAST, FOUR, *LAYER_PRESETS))
        raise UserError(f"--taps {shorten(taps)}: {words}, or four blocks (2,5,8,11) are expected")
    return blocks
