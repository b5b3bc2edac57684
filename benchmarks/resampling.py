"""Compare the two values of model.probability_resampling: masks, Dice and time.

    python benchmarks/resampling.py MODEL IMAGES LABELS [--stretch 1.37] [--slices 30]

MODEL is a trained 2D model's folder of grey images, IMAGES and LABELS folders of them (.png). The
images are given to the model as if their pixels were ``stretch`` as far apart as in training, so
that it works at another size and its logits are resampled.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape as to_masks,
)
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from PIL import Image

from nnunet_vit_trainer.prediction import Predictor
from nnunet_vit_trainer.prediction.batches import predicted

FUNCTIONS = {
    "plans": partial(
        resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None
    ),
    "torch": partial(
        resample_torch_fornnunet,
        is_seg=False,
        force_separate_z=False,
        memefficient_seg_resampling=False,
    ),
}


class Resampling:
    """nnU-Net's configuration with another function for probabilities."""

    def __init__(self, configuration: object, function: object) -> None:
        self._configuration = configuration
        self.resampling_fn_probabilities = function

    def __getattr__(self, name: str) -> object:
        return getattr(self._configuration, name)


def main() -> None:
    """Print the share of equal pixels, the Dice of both, and the time of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "images", "labels"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--stretch", type=float, default=1.37)
    parser.add_argument("--slices", type=int, default=30)
    arguments = parser.parse_args()
    predictor = Predictor(arguments.model, mirror=False)
    of = predictor.ensemble
    files = sorted(arguments.images.glob("*_0000.png"))
    files = files[:: max(len(files) // arguments.slices, 1)]
    seconds = dict.fromkeys(FUNCTIONS, 0.0)
    masks: dict[str, list[np.ndarray]] = {name: [] for name in FUNCTIONS}
    spacing = [999.0, arguments.stretch, arguments.stretch]
    for file in files:
        image = np.asarray(Image.open(file))[None, None].astype(np.float32)
        canvas, properties = predictor.preprocess(image, {"spacing": spacing})
        (canvas,) = predicted([canvas], of.networks, predictor.mirrors, 4, predictor.device)
        logits = canvas.result().numpy()
        for name, function in FUNCTIONS.items():
            begun = time.perf_counter()
            configuration = Resampling(of.configuration, function)
            mask = to_masks(
                logits.copy(), of.plans, configuration, of.labels, properties, num_threads_torch=1
            )
            seconds[name] += time.perf_counter() - begun
            masks[name].append(mask[0])
    truth = [np.asarray(Image.open(arguments.labels / f.name.replace("_0000", ""))) for f in files]
    found = {name: np.concatenate([m.ravel() for m in made]) for name, made in masks.items()}
    labels = np.concatenate([t.ravel() for t in truth])
    print(f"{len(files)} images; other labels in {np.mean(found['plans'] != found['torch']):.3%}")
    for name in FUNCTIONS:
        dice = [
            2
            * np.sum((found[name] == k) & (labels == k))
            / max(np.sum(found[name] == k) + np.sum(labels == k), 1)
            for k in np.unique(labels)[1:]
        ]
        print(
            f"{name}: pooled Dice {np.mean(dice):.4f}, {seconds[name] / len(files):.3f} s an image"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
