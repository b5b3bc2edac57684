"""How a bounded number is shared out."""

from collections.abc import Sequence


def even_shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Share a number out evenly; what a part has no use for goes to the others.

    Args:
        sizes: the most that each part takes.
        budget: to be shared; what is left of it after whole shares goes to the first parts.
    """
    shares = [0] * len(sizes)
    while budget > 0 and (hungry := [i for i, s in enumerate(sizes) if shares[i] < s]):
        each = max(1, budget // len(hungry))
        for i in hungry[:budget]:
            given = min(each, sizes[i] - shares[i])
            shares[i] += given
            budget -= given
    return shares
