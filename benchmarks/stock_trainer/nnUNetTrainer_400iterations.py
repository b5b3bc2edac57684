"""Stock nnU-Net, 8 epochs of 50 iterations: the yardstick of benchmarks/quality.py."""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_400iterations(nnUNetTrainer):  # noqa: N801
    """nnUNetTrainer with another number of epochs and iterations, and nothing else."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: Any = "cuda",
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 8
        self.num_iterations_per_epoch = 50
        self.num_val_iterations_per_epoch = 10
