"""Results of a data set as trainings leave them, ours and stock nnU-Net's, written without any."""

import copy
import json
import math

import numpy as np
from PIL import Image
from trained_results import DATASET, DATASET_JSON, PLANS

STOCK = "nnUNetTrainer__nnUNetPlans__2d"
UNET = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3], [3, 3]],
        "strides": [[1, 1], [2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
LOG = """\
2026-11-26 14:58:25.482390: Epoch {epoch} 
2026-11-26 14:58:25.482390: Current learning rate: 0.01 
2026-11-26 14:59:34.331842: Epoch time: {seconds} s 
"""  # noqa: W291 - nnU-Net's lines end so


def stock_plans():
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["2d"]["architecture"] = UNET
    return plans


def write_model(results, name=STOCK, plans=None, dataset=None):
    """Write a model's folder without folds."""
    folder = results / DATASET / name
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans or stock_plans()))
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET_JSON))
    return folder


def write_fold(model, number, dice, *, finished=True):
    """Write a validated fold: case -> Dice of classes 1, 2; ``None`` where neither mask has it."""
    fold = model / f"fold_{number}"
    (fold / "validation").mkdir(parents=True)
    cases = [
        {
            "reference_file": f"/home/me/labelsTr/{case}.png",
            "prediction_file": f"/home/me/{case}.png",
            "metrics": {
                str(key): {"Dice": math.nan if value is None else value, "TP": 1}
                for key, value in enumerate(values, 1)
            },
        }
        for case, values in dice.items()
    ]
    (fold / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    if finished:
        (fold / "checkpoint_final.pth").write_bytes(bytes(2_000_000))
    return fold


def write_log(fold, begun, *epochs):
    """Write a log: (epoch, seconds), where seconds are ``None`` of one that did not end."""
    lines = [LOG.format(epoch=epoch, seconds=seconds) for epoch, seconds in epochs]
    ended = [line if "None" not in line else line.rsplit("\n", 2)[0] + "\n" for line in lines]
    (fold / f"training_log_{begun}.txt").write_text("".join(ended))


def write_mask(file, rows, label=1):
    """Write a mask of 20 x 30 pixels with a rectangle of a label: (slice, slice)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[rows] = label
    Image.fromarray(mask).save(file)
