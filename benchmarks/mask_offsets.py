"""Say by how far predicted masks lie beside the true ones, in parts of a pixel.

    python benchmarks/mask_offsets.py TRUE_MASKS VALIDATION_FOLDER [...]

The shift that brings the predicted foregrounds of a folder (PNG masks) closest to the true ones,
the same for all of them, in the sum of squares of both blurred by 1.5 px. Predictions that are the
mean over mirrored images lie on no side of what they see: where all networks lie beside the truth
on the same side, the true masks lie beside their images.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, shift
from scipy.optimize import minimize

BLUR = 1.5
START = [[0.5, 0.5], [-0.5, 0.3], [0.2, -0.6]]


def main() -> None:
    """Print a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path)
    parser.add_argument("predicted", type=Path, nargs="+")
    arguments = parser.parse_args()
    for folder in arguments.predicted:
        down, right = offset(folder, arguments.truth)
        print(f"{down:+.2f} px down, {right:+.2f} px right: {folder}")


def offset(predicted: Path, truth: Path) -> tuple[float, float]:
    """Return how far a folder's predictions lie below, and to the right of, the true masks."""
    files = sorted(predicted.glob("*.png"))
    pairs = [[_foreground(folder / file.name) for folder in (predicted, truth)] for file in files]

    def difference(move: np.ndarray) -> float:
        return sum(((shift(found, move, order=3) - true) ** 2).sum() for found, true in pairs)

    options = {"initial_simplex": START, "xatol": 0.01, "fatol": 1e-3}
    down, right = minimize(difference, (0, 0), method="Nelder-Mead", options=options).x
    return -down, -right


def _foreground(file: Path) -> np.ndarray:
    return gaussian_filter((np.asarray(Image.open(file)) > 0).astype(float), BLUR)


if __name__ == "__main__":
    main()
