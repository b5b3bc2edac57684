"""How masks that two processes predicted are compared."""

import numpy as np


def masks_agree(one, two):
    """Compare masks of two processes: a pixel in a thousand may differ.

    Rounding differs between processes even with one thread each (the memory's alignment decides
    which way MKL takes), and a pixel near a tie goes with it.
    """
    return one.shape == two.shape and np.mean(one != two) <= 1e-3
