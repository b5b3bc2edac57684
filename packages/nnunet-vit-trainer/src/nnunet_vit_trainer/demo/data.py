"""A procedural data set in nnU-Net's raw format: textures that no threshold separates.

Grey images of a grainy background with smooth patches of three textures. Every texture has the
background's mean and contrast, so a pixel's value says next to nothing of its class.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

DATASET = "Dataset900_ViTDemo"
CLASSES = ("stripes", "spots", "blotches")


def write_dataset(
    raw: Path, *, num_train: int = 40, num_test: int = 8, size: int = 128, seed: int = 0
) -> Path:
    """Write the data set below nnU-Net's raw folder and return its folder.

    Args:
        raw: the folder that ``nnUNet_raw`` names.
        num_train: images in imagesTr and labelsTr.
        num_test: images in imagesTs and labelsTs.
        size: height and width in pixels.
        seed: the same seed writes the same files.
    """
    folder = raw / DATASET
    rng = np.random.default_rng(seed)
    for split, count in (("Tr", num_train), ("Ts", num_test)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{split}").mkdir(parents=True)
        for index in range(count):
            image, label = make_image(rng, size)
            name = f"demo_{split.lower()}_{index:03d}"
            Image.fromarray(image).save(folder / f"images{split}" / f"{name}_0000.png")
            Image.fromarray(label).save(folder / f"labels{split}" / f"{name}.png")
    description = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0} | {name: i for i, name in enumerate(CLASSES, start=1)},
        "numTraining": num_train,
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
        "description": "Procedural textures, written by nnUNetv2_demo_vit.",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    return folder


def make_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and its labels: two (size, size) uint8 arrays."""
    label = _smooth_regions(rng, size)
    textures = [_grain(rng, size), _stripes(rng, size), _spots(rng, size), _blotches(rng, size)]
    image = np.choose(label, [_standardize(texture) for texture in textures])
    image = gaussian_filter(image, 0.5) + 0.25 * rng.standard_normal((size, size))
    light = gaussian_filter(rng.standard_normal((size, size)), size / 4)
    image += 0.5 * _standardize(light)
    grey = 128 + 36 * _standardize(image)
    return np.clip(grey, 0, 255).astype(np.uint8), label


def _smooth_regions(rng: np.random.Generator, size: int) -> np.ndarray:
    """Label 0 where no class's smooth random field is high, else the highest one's class."""
    fields = np.stack(
        [
            _standardize(gaussian_filter(rng.standard_normal((size, size)), size / 8))
            for _ in CLASSES
        ]
    )
    highest = fields.argmax(0)
    return np.where(fields.max(0) > 0.7, highest + 1, 0).astype(np.uint8)


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_normal((size, size))


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size]
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 7 + phase)


def _spots(rng: np.random.Generator, size: int) -> np.ndarray:
    dots = np.zeros((size, size))
    step = 8
    for y in range(0, size, step):
        for x in range(0, size, step):
            dy, dx = rng.integers(0, 4, 2)
            dots[min(y + dy, size - 1), min(x + dx, size - 1)] = 1
    return gaussian_filter(dots, 1.5)


def _blotches(rng: np.random.Generator, size: int) -> np.ndarray:
    return gaussian_filter(rng.standard_normal((size, size)), 3)


def _standardize(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
