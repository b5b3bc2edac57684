"""A preprocessed data set, written without nnU-Net's commands, for the tests of the probe."""

import json
import pickle

import numpy as np

DATASET = "Dataset900_Tiny"
LABELS = {"background": 0, "a": 1, "b": 2}


def write_data(home, cases, *, labels=LABELS, tile=(32, 32), splits=None, scheme="ZScore"):
    """Write cases as nnU-Net preprocesses them, and their plans; return the data set's folder.

    Args:
        home: the folder of ``nnUNet_preprocessed``.
        cases: name -> image (C, slices, height, width) and mask (slices, height, width).
        labels: of dataset.json.
        tile: planned.
        splits: the content of splits_final.json.
        scheme: normalisation of each channel.
    """
    folder = home / DATASET
    data = folder / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    channels = len(next(iter(cases.values()))[0])
    settings = {
        "data_identifier": "nnUNetPlans_2d",
        "patch_size": list(tile),
        "batch_size": 2,
        "spacing": [3.0, 2.0],
        "normalization_schemes": [f"{scheme}Normalization"] * channels,
    }
    plans = {"dataset_name": DATASET, "plans_name": "nnUNetPlans", "configurations": {}}
    plans["configurations"]["2d"] = settings
    content = {"channel_names": {str(i): f"c{i}" for i in range(channels)}, "labels": labels}
    if any(isinstance(label, list) for label in labels.values()):
        content["regions_class_order"] = [1, 2]
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(content | {"file_ending": ".png"}))
    if splits is not None:
        (folder / "splits_final.json").write_text(json.dumps(splits))
    for name, (image, mask) in cases.items():
        arrays = {"data": image.astype(np.float32), "seg": mask[None].astype(np.int8)}
        np.savez_compressed(data / f"{name}.npz", **arrays)
        (data / f"{name}.pkl").write_bytes(pickle.dumps({"spacing": [1.0, 1.0, 1.0]}))
    return folder


def blocks(number, *, channels=1, slices=1, size=32):
    """Make a case whose two classes are squares, lighter and darker than the noise around them."""
    rng = np.random.default_rng(number)
    mask = np.zeros((slices, size, size), np.int8)
    corner = int(rng.integers(0, 4))
    mask[:, :16, corner : corner + 12] = 1
    mask[:, 18:30, 16:] = 2
    image = rng.normal(0, 0.2, (channels, slices, size, size)) + 2 * (mask == 1) - 2 * (mask == 2)
    return image, mask
