"""What the demo tells of images that training never saw: Dice per class."""

from pathlib import Path

import numpy as np
from PIL import Image


def dice_per_class(truth: Path, prediction: Path, num_classes: int) -> list[float]:
    """Compare two folders of label images; the mean over the images that have the class.

    Args:
        truth: the labels; every file's namesake must lie in ``prediction``.
        prediction: the predicted labels.
        num_classes: foreground classes 1 ... num_classes.
    """
    pairs = [(_read(file), _read(prediction / file.name)) for file in sorted(truth.glob("*.png"))]
    return [
        float(np.mean([_dice(t == c, p == c) for t, p in pairs if (t == c).any()]))
        for c in range(1, num_classes + 1)
    ]


def _dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return 2 * np.sum(truth & prediction) / (truth.sum() + prediction.sum())


def _read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))
