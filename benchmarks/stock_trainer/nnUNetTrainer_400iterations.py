"""Stock nnU-Net of few iterations: the yardstick of benchmarks/quality.py and labels.py."""

import os
import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_400iterations(nnUNetTrainer):  # noqa: N801
    """nnUNetTrainer with another number of epochs and iterations, and a seed.

    The seed is the environment's QUALITY_SEED; it holds where data are augmented in this process.

    Attributes:
        length: epochs, iterations an epoch, and validation's iterations an epoch.
    """

    length = (16, 25, 10)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: Any = "cuda",
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = (
            self.length
        )
        seed = int(os.environ["QUALITY_SEED"])
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)


class nnUNetTrainer_iterations(nnUNetTrainer_400iterations):  # noqa: N801
    """The same of another length: the environment's LABELS_LENGTH, which labels.py sets."""

    length = tuple(map(int, os.environ.get("LABELS_LENGTH", "16 25 10").split()))
