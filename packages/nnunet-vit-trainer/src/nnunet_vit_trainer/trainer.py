"""nnU-Net's trainer for a ViT: the overrides that it demands; the logic is in functions."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from vit_backbone import UserError, load_weights

from .base_weights import load_base_weights
from .checkpoints import checkpoint_of, fill_up, frozen_names, unwrap, write_atomically
from .optimization import build_optimizer, training_step
from .plans import PLANS_KEY


class nnUNetTrainer_vit(nnUNetTrainer):
    """Train the network and by the recipe that derived plans carry, with deep supervision.

    The constructor takes exactly nnU-Net's arguments: the base class looks each of them up.

    Raises:
        UserError: plans that were not derived from a config.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        if PLANS_KEY not in plans:
            raise UserError(
                f"plans {plans['plans_name']!r} carry no ViT; nnUNetv2_train_vit derives plans "
                "that do from a config"
            )
        super().__init__(plans, configuration, fold, dataset_json, device)
        train = plans[PLANS_KEY]["train"]
        self.initial_lr = train["initial_lr"]
        self.weight_decay = train["weight_decay"]
        self.gradient_clip = train["gradient_clip"]
        self.num_epochs = train["num_epochs"]
        self.num_iterations_per_epoch = train["num_iterations_per_epoch"]
        self.num_val_iterations_per_epoch = train["num_val_iterations_per_epoch"]
        self.grad_scaler = None  # bfloat16 needs none
        self.holds_base_weights = False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        return build_optimizer(
            self.network,
            initial_lr=self.initial_lr,
            weight_decay=self.weight_decay,
            num_epochs=self.num_epochs,
        )

    def on_train_start(self) -> None:
        # A resumed run and one from -pretrained_weights are initialized before they come here,
        # and hold their weights already.
        if not self.was_initialized:
            self.initialize()
            self._load_pretrained()
        self.holds_base_weights = True
        self.print_to_log_file(
            f"Input normalisation: {self.plans_manager.plans[PLANS_KEY]['input_norm']}"
        )
        super().on_train_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        image, target = (to_device(batch[key], self.device) for key in ("data", "target"))
        loss = training_step(
            self.network,
            self.loss,
            self.optimizer,
            image,
            target,
            gradient_clip=self.gradient_clip,
        )
        return {"loss": np.float32(loss)}

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch what ``forward`` returns; nnU-Net's own looks for a U-Net's decoder."""
        if self.enable_deep_supervision:
            unwrap(self.network).head.deep_supervision = enabled

    def _build_loss(self) -> nn.Module:
        loss = super()._build_loss()
        if self.enable_deep_supervision:
            loss.weight_factors = deep_supervision_weights(len(loss.weight_factors))
        return loss

    def save_checkpoint(self, filename: str) -> None:
        """Write what nnU-Net writes, but whole or not at all, and under nnU-Net's trainer's name.

        With that name stock prediction builds the network from the plans, without this package's
        trainer being found.
        """
        if self.local_rank == 0 and not self.disable_checkpointing:
            file = Path(filename)
            whole = self.plans_manager.plans[PLANS_KEY]["train"]["checkpoint"] == "full"
            # Stock prediction opens checkpoint_final, and loads strictly.
            whole = whole or file.name == "checkpoint_final.pth"
            write_atomically(checkpoint_of(self, whole), file)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Read what nnU-Net reads; what an adapter checkpoint leaves out comes from its file."""
        if not self.was_initialized:
            self.initialize()
        hook = unwrap(self.network).register_load_state_dict_pre_hook(self._complete)
        super().load_checkpoint(filename_or_checkpoint)
        hook.remove()
        self.holds_base_weights = True

    def _complete(self, network: nn.Module, weights: dict[str, torch.Tensor], *_: Any) -> None:
        if not self.holds_base_weights and frozen_names(network) - weights.keys():
            load_base_weights(network, self.plans_manager.plans[PLANS_KEY]["weights"])
        fill_up(weights, network)

    def _load_pretrained(self) -> None:
        weights = self.plans_manager.plans[PLANS_KEY]["weights"]
        if weights is None:
            self.print_to_log_file("Backbone: random initialisation (no pretrained weights)")
            return
        report = load_weights(unwrap(self.network).backbone, weights["file"])
        self.print_to_log_file(f"Backbone: {report.line()}")


class nnUNetTrainerNoDeepSupervision_vit(nnUNetTrainer_vit):
    """The same without deep supervision: the default."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False


def deep_supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weigh the outputs, finest first, by halves: 1, 1/2, 1/4, ... with the sum 1.

    nnU-Net gives the coarsest one 0, which would leave its classifier without a gradient.
    """
    weights = [0.5**i for i in range(outputs)]
    return tuple(weight / sum(weights) for weight in weights)


def to_device(data: torch.Tensor | list[torch.Tensor], device: torch.device) -> Any:
    """Move a tensor, or each of a list, to a device."""
    if isinstance(data, list):
        return [to_device(item, device) for item in data]
    return data.to(device, non_blocking=True)
