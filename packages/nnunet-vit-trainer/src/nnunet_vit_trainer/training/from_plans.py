"""What a training is made of and kept as: network, optimizer, loss, data and checkpoints."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_vit_trainer.checkpoints.base_weights import load_pretrained
from nnunet_vit_trainer.checkpoints.content import checkpoint_of, unwrap, write_atomically
from nnunet_vit_trainer.checkpoints.continuing import completed, misfit_in_one_line, state_of
from nnunet_vit_trainer.checkpoints.model_folder import FINAL
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError
from vit_backbone.heads.recompute import set_recompute
from vit_backbone.vits.unfilled import weights_follow

from .averaging import WeightAverage
from .compiling import is_asked_for, reason_against
from .ending.processes import EndsWithTrainer
from .group import local_device, wrap
from .labelled import weigh_by_labelled
from .optimization import OPTIMIZER_KEYS, Schedule, build_optimizer, default_warmup
from .oversight.cases import (
    EMPTY_MASKS,
    have_foreground,
    refuse_bad_cases,
    refuse_infinite,
    sample_of,
)
from .oversight.progress import EpochDisplay
from .oversight.split import checked_split
from .oversight.steps import EpochSteps
from .seeding import seed_generators, seeded_data_workers
from .shortage.workers import watched_data_workers
from .step import deep_supervision_weights, resolve_amp_dtype
from .threads import FindsLibrariesOnce

ADVICE = (
    "the weights of the last good epochs lie in checkpoint_best.pth and checkpoint_latest.pth; "
    "lower train.initial_lr, or set train.amp_dtype to float32"
)

ATTRIBUTES = (
    "initial_lr",
    "weight_decay",
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "save_every",
)
"""Of a recipe, the keys that nnU-Net's trainer has as attributes of the same names."""


class BuiltFromPlans(nnUNetTrainer):
    """A training as derived plans describe it, before its first step: trainer.py runs it.

    Args:
        plans, configuration, fold, dataset_json, device: nnU-Net's.

    Attributes:
        deep_supervised: of the class: whether auxiliary outputs are trained too.

    Raises:
        UserError: plans that were not derived from a config.
    """

    deep_supervised = True

    # nnU-Net has ``None`` for them until it is initialized.
    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: nn.Module
    dataloader_train: Any
    output_folder_base: str
    output_folder: str

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
        # nnU-Net's annotation forgets "all".
        super().__init__(plans, configuration, fold, dataset_json, device)  # ty: ignore[invalid-argument-type]
        if self.is_ddp:  # nnU-Net takes CUDA, and the global rank as the device's number
            self.device = local_device(device.type)
        self.enable_deep_supervision = self.deep_supervised
        # By tiles' numbers in a batch nnU-Net looks for foreground in none of one.
        self.probabilistic_oversampling |= self.configuration_manager.batch_size == 1
        train = plans[PLANS_KEY]["train"]
        self.recipe = train
        for name in ATTRIBUTES:
            setattr(self, name, train[name])
        self.amp_dtype = resolve_amp_dtype(train["amp_dtype"], self.device.type)
        scaled = self.amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device.type) if scaled else None
        batches = self.num_epochs * self.num_iterations_per_epoch * train["accumulate_steps"]
        self.not_compiled = reason_against(self.device, batches)
        self.average: WeightAverage | None = None
        self.steps = EpochSteps(partial(refuse_infinite, self), f"{ADVICE} ({self.output_folder})")
        self.gradients_seen = False
        self.display = EpochDisplay(
            self.device, self.configuration_manager.batch_size * train["accumulate_steps"]
        )
        self.began = time.time()  # a run that goes on has that of its first start
        self.resumed_from: Path | None = None
        self.split: str | None = None
        self.before_validation: dict[str, Any] | None = None  # random states, while it lasts
        self.holds_base_weights = False
        self.validated = FINAL  # or the best, as --val_best asks

    def initialize(self) -> None:
        # nnU-Net would wrap the network for the CUDA device of the global rank. What else it does
        # in a group, the share of the batch and the loss, is done below.
        in_group, self.is_ddp = self.is_ddp, False
        if self.recipe["seed"] is not None:
            seed_generators(self.recipe["seed"])
        if self.not_compiled:
            self.print_to_log_file(f"torch.compile is not used: {self.not_compiled}")
        super().initialize()
        self.is_ddp = in_group
        network = unwrap(self.network)
        network.backbone.set_grad_checkpointing(self.recipe["grad_checkpointing"])
        if self.recipe["grad_checkpointing_head"]:
            set_recompute(network.head)
        if in_group:
            self._set_batch_size_and_oversample()
            self.network = wrap(self.network, self.device)
            self.loss = self._build_loss()

    def begin(self) -> str:
        """Initialize, fill the backbone with its pretrained weights, and say where they are from.

        Raises:
            UserError: see `load_pretrained`.
        """
        weights = self.plans_manager.plans[PLANS_KEY]["weights"]
        if weights is None:
            self.initialize()
            return "random initialisation (no pretrained weights)"
        with weights_follow():
            self.initialize()
        return load_pretrained(unwrap(self.network), weights)

    def _do_i_compile(self) -> bool:
        if self.not_compiled:
            return False
        # nnU-Net compiles nothing on a CPU, where its own 2D networks crash.
        return is_asked_for() if self.device.type == "cpu" else super()._do_i_compile()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        optimizer = build_optimizer(
            unwrap(self.network),
            **{key: self.recipe[key] for key in OPTIMIZER_KEYS},
        )
        warmup_epochs = self.recipe["warmup_epochs"]
        if warmup_epochs is None:
            warmup_epochs = default_warmup(self.num_epochs)
        schedule = Schedule(optimizer, self.num_epochs, warmup_epochs, self.recipe["lr_schedule"])
        return optimizer, schedule

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch what ``forward`` returns; nnU-Net's own looks for a U-Net's decoder."""
        if self.enable_deep_supervision:
            unwrap(self.network).head.deep_supervision = enabled

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> ComposeTransforms:
        return _with_ours(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    @staticmethod
    def get_validation_transforms(*args: Any, **kwargs: Any) -> ComposeTransforms:
        return _with_ours(nnUNetTrainer.get_validation_transforms(*args, **kwargs))

    def _build_loss(self) -> nn.Module:
        loss = super()._build_loss()
        if self.enable_deep_supervision:
            loss.weight_factors = deep_supervision_weights(len(loss.weight_factors))
        ignored = self.label_manager.ignore_label
        if self.is_ddp and ignored is not None:
            weigh_by_labelled(loss.loss if self.enable_deep_supervision else loss, ignored)
        return loss

    def get_dataloaders(self) -> tuple[Any, Any]:
        seed = self.recipe["seed"]
        with watched_data_workers():
            if seed is None:
                return super().get_dataloaders()
            # A continued run does not see its first batches again, nor a rank those of another.
            taken = len(self.steps.losses)  # of this epoch, where it was stopped
            numbers = (seed, self.local_rank, self.current_epoch, *([taken] if taken else []))
            seed_generators(*numbers)
            with seeded_data_workers(*numbers):
                return super().get_dataloaders()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        datasets = super().get_tr_and_val_datasets()
        self.split = checked_split(self.split, *(dataset.identifiers for dataset in datasets))
        samples = [sample_of(dataset.identifiers) for dataset in datasets]
        refuse_bad_cases(self, [*samples[0], *samples[1]], pixels=False)
        if not have_foreground(self, samples[0]):
            self.print_to_log_file(f"WARNING: {EMPTY_MASKS.format(len(samples[0]))}")
        return datasets

    def save_checkpoint(self, filename: str) -> None:
        """Write what nnU-Net writes, but whole or not at all, and under nnU-Net's trainer's name.

        With that name stock prediction builds the network from the plans, without this package's
        trainer being found.
        """
        if self.local_rank == 0 and not self.disable_checkpointing:
            file = Path(filename)
            whole = self.recipe["checkpoint"] == "full"
            if file.name == FINAL:
                whole = True  # stock prediction opens it, and loads strictly
                # Of the weights before: a run that ends before its validation would pass for them.
                Path(self.output_folder, "validation", "summary.json").unlink(missing_ok=True)
            write_atomically(checkpoint_of(self, whole), file)

    # nnU-Net's takes a checkpoint's content too, which nobody gives it.
    def load_checkpoint(self, filename_or_checkpoint: str) -> None:  # ty: ignore[incompatible-method-override]
        """Read what nnU-Net reads; what an adapter checkpoint leaves out comes from its file."""
        file = Path(filename_or_checkpoint)
        state = state_of(file)  # first: it says in one line that a file was cut off
        if not self.was_initialized:
            with weights_follow():  # nnU-Net loads strictly
                self.initialize()
        weights = self.plans_manager.plans[PLANS_KEY]["weights"]
        self.resumed_from = file
        own = self.my_init_kwargs
        with (
            misfit_in_one_line(file),
            completed(unwrap(self.network), weights, self.holds_base_weights),
        ):
            super().load_checkpoint(filename_or_checkpoint)
        # nnU-Net takes the checkpoint's for the next ones to hold: plans of before, with what --c
        # may change as it was.
        self.my_init_kwargs = own
        self.holds_base_weights = True
        self.split = state.get("split")
        self.steps.losses = state.get("losses", [])


def _with_ours(transforms: Any) -> ComposeTransforms:
    steps: list[Any] = [EndsWithTrainer(), FindsLibrariesOnce(), transforms]
    return ComposeTransforms(steps)
