"""Surface Dice and HD95 of predicted masks in two dimensions, by the package surface-distance.

In pixels, per case and class that either mask has, then the mean. Where a class is in one of the
two masks only, its surface Dice is 0 and its HD95 the image's diagonal.
"""

import math
from pathlib import Path
from statistics import mean

import numpy as np
import surface_distance
from PIL import Image

TOLERANCE = 1.0


def surface_scores(predicted: Path, truth: Path) -> tuple[float, float]:
    """Return mean surface Dice at 1 px and mean HD95 over a folder of PNG masks.

    Args:
        predicted: the masks; background is 0.
        truth: the folder with a mask of the same name for each.
    """
    scores = []
    for file in sorted(predicted.glob("*.png")):
        found, true = (np.asarray(Image.open(folder / file.name)) for folder in (predicted, truth))
        for label in sorted((set(np.unique(found)) | set(np.unique(true))) - {0}):
            scores.append(_of_class(found == label, true == label))
    surface_dice, hd95 = zip(*scores, strict=True)
    return mean(surface_dice), mean(hd95)


def _of_class(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    if not (found.any() and true.any()):
        return 0.0, math.hypot(*true.shape)
    distances = surface_distance.compute_surface_distances(true, found, (1.0, 1.0))
    return (
        float(surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE)),
        float(surface_distance.compute_robust_hausdorff(distances, 95)),
    )
