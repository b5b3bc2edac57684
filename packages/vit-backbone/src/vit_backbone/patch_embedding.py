"""Whether an adapted patch embedding trains where the rest of the backbone is frozen. No torch."""


def patch_embedding_trains(in_chans: int, trained_chans: int = 3) -> bool:
    """Decide whether a patch embedding goes on training under LoRA and freezing.

    For one channel the kernels are summed, which equals repeating the grey value: it is exact, so
    there is nothing to learn. Weights that have the image's channels are not adapted at all.
    Repeated and scaled kernels for any other number are a guess, which trains.

    Args:
        in_chans: of the image, at least 1.
        trained_chans: of the weight file.
    """
    return in_chans not in (1, trained_chans)
