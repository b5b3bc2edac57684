"""What the demo shows: Dice per class, and a picture."""

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


def write_picture(data: Path, prediction: Path, file: Path, rows: int = 3) -> None:
    """Draw image | truth | prediction for the first test images.

    Args:
        data: the raw data set.
        prediction: the predicted labels.
        file: the PNG to write.
        rows: how many images.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap

    colors = ListedColormap(["#00000000", "#e69f00aa", "#56b4e9aa", "#cc79a7aa"])
    figure, axes = plt.subplots(rows, 3, figsize=(7.2, 2.4 * rows), layout="constrained")
    names = sorted(label.name for label in (data / "labelsTs").glob("*.png"))[:rows]
    for row, name in zip(axes, names, strict=True):
        image = _read(data / "imagesTs" / name.replace(".png", "_0000.png"))
        masks = (None, _read(data / "labelsTs" / name), _read(prediction / name))
        for axis, mask in zip(row, masks, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            if mask is not None:
                axis.imshow(mask, cmap=colors, vmin=0, vmax=3, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("image", "truth", "prediction"), strict=True):
        axis.set_title(title)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return 2 * np.sum(truth & prediction) / (truth.sum() + prediction.sum())


def _read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))
