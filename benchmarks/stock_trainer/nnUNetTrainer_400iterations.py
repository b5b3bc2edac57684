"""Stock nnU-Net, 16 epochs of 25 iterations: the yardstick of benchmarks/quality.py."""

import os
import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_400iterations(nnUNetTrainer):  # noqa: N801
    """nnUNetTrainer with another number of epochs and iterations, and a seed.

    The seed is the environment's QUALITY_SEED; it holds where data are augmented in this process.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: Any = "cuda",
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 16
        self.num_iterations_per_epoch = 25
        self.num_val_iterations_per_epoch = 10
        seed = int(os.environ["QUALITY_SEED"])
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
