"""Image values as what a screen shows: a window of grey, or colours."""

from collections.abc import Sequence

import numpy as np

_COLOURS = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
_PERCENTILES = (0.5, 99.5)


def are_colours(names: Sequence[str]) -> bool:
    """Say whether channels are red, green and blue (and maybe transparency), by their names.

    Args:
        names: of dataset.json's channels, in order.
    """
    known = [str(name).strip().lower() for name in names]
    if len(known) not in (3, 4):
        return False
    named = all(name in colour for name, colour in zip(known, _COLOURS, strict=False))
    return named or {*known[:3]} == {"rgb_to_0_1"}


def to_rgb(
    image: np.ndarray, window: tuple[float | None, float | None] | None = None
) -> np.ndarray:
    """Turn one channel, or three, into (height, width, 3), 0 to 255.

    Colours of 0 to 255 are kept as they are. Anything else is stretched between two values that
    are the same for all channels.

    Args:
        image: (1 or 3, height, width), any values.
        window: the values of black and white; ``None`` is the image's 0.5 and 99.5 percentiles.
    """
    finite = image[np.isfinite(image)]
    if len(image) == 3 and finite.size and finite.min() >= 0 and 1 < finite.max() <= 255:
        shown = np.nan_to_num(image, posinf=255, neginf=0).astype(np.uint8)
        return np.moveaxis(shown, 0, 2)
    low, high = window or (None, None)
    if low is None or high is None or not low < high:
        low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    span = high - low if high > low else 1.0
    scaled = np.clip(np.nan_to_num((image - low) / span, nan=0.0), 0, 1)
    grey = np.rint(255 * scaled).astype(np.uint8)
    return np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, 2)
