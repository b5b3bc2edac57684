"""nnU-Net's trainer for a ViT: the overrides that it demands; the logic is in functions."""

import gc
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_vit_trainer.checkpoints.base_weights import load_pretrained
from nnunet_vit_trainer.checkpoints.content import checkpoint_of, unwrap, write_atomically
from nnunet_vit_trainer.checkpoints.continuing import completed, go_on, misfit_in_one_line, state_of
from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError
from vit_backbone.heads.recompute import set_recompute
from vit_backbone.vits.unfilled import weights_follow

from .averaging import WeightAverage
from .compiling import is_asked_for, reason_against
from .ending.processes import EndsWithTrainer
from .ending.stop import LastEpoch, Stopped, asked_by, is_there, signals_wait, stop_file_of
from .group import largest_of_ranks, local_device, wrap
from .optimization import Schedule, build_optimizer, default_warmup
from .oversight.cases import (
    EMPTY_MASKS,
    have_foreground,
    naming_bad_cases,
    refuse_bad_cases,
    refuse_infinite,
    sample_of,
    warn_of_bad_cases,
)
from .oversight.peak import peak_line
from .oversight.showing import conclude_validation
from .oversight.split import checked_split, keep_masks_of
from .oversight.steps import EpochSteps
from .oversight.validation import validated_whole
from .oversight.watch import plateau_hint, refuse_idle_lora
from .progress import EpochDisplay, Figures, is_shown
from .seeding import seed_generators, seeded_data_workers
from .shortage.workers import watched_data_workers
from .step import deep_supervision_weights, resolve_amp_dtype, to_device, training_step
from .threads import FindsLibrariesOnce

ADVICE = (
    "the weights of the last good epochs lie in checkpoint_best.pth and checkpoint_latest.pth; "
    "lower train.initial_lr, or set train.amp_dtype to float32"
)
OPTIMIZER_KEYS = (
    "initial_lr",
    "weight_decay",
    "optimizer",
    "betas",
    "backbone_lr_scale",
    "layer_decay",
    "head_first_epochs",
)


class nnUNetTrainer_vit(nnUNetTrainer):
    """Train the network and by the recipe that derived plans carry, with deep supervision.

    The constructor takes exactly nnU-Net's arguments: the base class looks each of them up.

    Raises:
        UserError: plans that were not derived from a config.
    """

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
        train = plans[PLANS_KEY]["train"]
        self.recipe = train
        self.initial_lr = train["initial_lr"]
        self.weight_decay = train["weight_decay"]
        self.num_epochs = train["num_epochs"]
        self.num_iterations_per_epoch = train["num_iterations_per_epoch"]
        self.num_val_iterations_per_epoch = train["num_val_iterations_per_epoch"]
        self.save_every = train["save_every"]
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
        self.holds_base_weights = False

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

    def on_train_start(self) -> None:
        # A resumed run and one from -pretrained_weights are initialized before they come here,
        # and hold their weights already.
        if not self.was_initialized:
            self.print_to_log_file(f"Backbone: {self.begin()}")
        self.holds_base_weights = True
        if self.recipe["ema"]:
            self.average = WeightAverage(unwrap(self.network), self.recipe["ema"])
        self.print_to_log_file(
            f"Input normalisation: {self.plans_manager.plans[PLANS_KEY]['input_norm']}"
        )
        super().on_train_start()
        if self.local_rank == 0:
            record = yaml.safe_dump(self.plans_manager.plans[PLANS_KEY], sort_keys=False)
            with written_whole(Path(self.output_folder_base, "vit.yaml")) as unfinished:
                unfinished.write_text(record, encoding="utf-8")
        if self.resumed_from is not None:
            go_on(self, self.resumed_from)

    def run_training(self) -> None:
        try:
            super().run_training()
        except LastEpoch:
            self.on_train_end()
        finally:
            self.display.close()

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

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        signals_wait()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        datasets = super().get_tr_and_val_datasets()
        self.split = checked_split(self.split, *(dataset.identifiers for dataset in datasets))
        samples = [sample_of(dataset.identifiers) for dataset in datasets]
        refuse_bad_cases(self, [*samples[0], *samples[1]], pixels=False)
        if not have_foreground(self, samples[0]):
            self.print_to_log_file(f"WARNING: {EMPTY_MASKS.format(len(samples[0]))}")
        return datasets

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        # A run that was stopped in this epoch has taken some of its steps already.
        self.num_iterations_per_epoch = self.recipe["num_iterations_per_epoch"]
        self.num_iterations_per_epoch -= len(self.steps.losses)
        for group in self.optimizer.param_groups:
            self.print_to_log_file(f"  {group['name']}: {group['lr']:.3g}")
        if self.local_rank == 0:
            steps = self.num_iterations_per_epoch + self.num_val_iterations_per_epoch
            self.display.begin(self.current_epoch, self.num_epochs, steps)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.display.begin_step()
        more = range(self.recipe["accumulate_steps"] - 1)
        batches = [batch, *(next(self.dataloader_train) for _ in more)]
        with naming_bad_cases(self, batches):
            outcome = training_step(
                self.network,
                self.loss,
                self.optimizer,
                [tuple(to_device(b[k], self.device) for k in ("data", "target")) for b in batches],
                gradient_clip=self.recipe["gradient_clip"],
                amp_dtype=self.amp_dtype,
                grad_scaler=self.grad_scaler,
            )
        self.steps.add(outcome, batches)
        if not self.gradients_seen:
            refuse_idle_lora(unwrap(self.network))
            self.gradients_seen = True
        if self.average is not None:
            self.average.update()
        # CUDA gets the next step before the outcome of this one is asked for.
        self.steps.read(ahead=1 if self.device.type == "cuda" else 0)
        self._end_if_asked()
        loss = self.steps.losses[-1] if self.steps.losses else math.nan
        self.display.end_step(loss)
        return {"loss": np.float32(loss)}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self.steps.read()
        train_outputs = [{"loss": np.float32(loss)} for loss in self.steps.losses]
        taken = [output for output in train_outputs if np.isfinite(output["loss"])]
        if len(taken) < len(train_outputs):
            self.print_to_log_file(
                f"{len(train_outputs) - len(taken)} steps of this epoch were skipped: the loss or "
                f"a gradient was not finite ({self.steps.watch.skipped} in the whole run)"
            )
        super().on_train_epoch_end(taken or train_outputs)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if self.average is not None:
            self.average.swap()

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.display.begin_step()
        self._end_if_asked()
        with naming_bad_cases(self, [batch]):
            result = super().validation_step(batch)
        if not np.isfinite(result["loss"]).all():
            refuse_infinite(self, [batch])
        self.display.end_step()
        return result

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        super().on_validation_epoch_end(val_outputs)
        if self.average is not None:
            self.average.swap()
        self.steps.losses = []

    def on_epoch_end(self) -> None:
        if self.local_rank == 0:
            self.print_to_log_file(self.display.end(self._figures()))
        super().on_epoch_end()
        # The figure of progress.png holds 65 MB in a circle of references; up to 1 GB gathers.
        gc.collect()
        hint = plateau_hint(self.logger.get_value("ema_fg_dice", step=None), self.num_epochs)
        if hint is not None:
            self.print_to_log_file(hint)
        stop_file = stop_file_of(self.recipe["stop_file"], self.output_folder)
        if largest_of_ranks(int(is_there(stop_file)), self.device):
            self.print_to_log_file(f"train.stop_file: {stop_file} is there, no epoch follows")
            raise LastEpoch

    def _figures(self) -> Figures:
        names = ("train_losses", "val_losses", "lrs", "dice_per_class_or_region")
        loss, val_loss, rate, dice = (self.logger.get_value(name, step=-1) for name in names)
        return Figures(self.current_epoch, self.num_epochs, loss, val_loss, rate, dice)

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Write to nnU-Net's log, and to the console what is to be seen there."""
        super().print_to_log_file(
            *args,
            also_print_to_console=also_print_to_console and is_shown(args),
            add_timestamp=add_timestamp,
        )

    def on_train_end(self) -> None:
        super().on_train_end()
        self.print_to_log_file(peak_line(self.device))
        if self.average is not None:
            self.average.swap()  # for the final validation
        signals_wait(False)
        if number := largest_of_ranks(asked_by(), self.device):
            raise Stopped(number, saved=not self.disable_checkpointing)

    def _end_if_asked(self) -> None:
        """End with this step, all ranks together, if a signal asked one of them to.

        The checkpoint counts the epoch as not finished, and holds the steps that it took.
        """
        number = largest_of_ranks(asked_by(), self.device)
        if not number:
            return
        self.steps.read()
        if self.average is not None and self.average.swapped:
            self.average.swap()
        self.current_epoch -= 1  # nnU-Net counts on as it saves
        self.save_checkpoint(str(Path(self.output_folder, "checkpoint_latest.pth")))
        largest_of_ranks(0, self.device)  # the first to end takes the others along
        raise Stopped(number, saved=not self.disable_checkpointing)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, and say what makes its figures say nothing.

        Not compiled, unless nnU-Net is asked to: tiles would need two graphs more, one for flipped
        ones, and few validations earn them back.
        """
        training, cases = self.do_split()
        self.split = checked_split(self.split, training, cases)
        warn_of_bad_cases(self, cases)
        folder = Path(self.output_folder, "validation")
        if self.local_rank == 0:
            keep_masks_of(self, cases, folder)
        trained, self.network = self.network, unwrap(self.network)
        try:
            with validated_whole(folder, self.local_rank == 0):
                super().perform_actual_validation(save_probabilities)
        finally:
            self.network = trained
        # Other ranks would read the summary half written.
        if self.local_rank == 0:
            conclude_validation(self)

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
        return loss

    def save_checkpoint(self, filename: str) -> None:
        """Write what nnU-Net writes, but whole or not at all, and under nnU-Net's trainer's name.

        With that name stock prediction builds the network from the plans, without this package's
        trainer being found.
        """
        if self.local_rank == 0 and not self.disable_checkpointing:
            file = Path(filename)
            whole = self.recipe["checkpoint"] == "full"
            if file.name == "checkpoint_final.pth":
                whole = True  # stock prediction opens it, and loads strictly
                # Of the weights before: a run that ends before its validation would pass for them.
                Path(self.output_folder, "validation", "summary.json").unlink(missing_ok=True)
            write_atomically(checkpoint_of(self, whole), file)

    # nnU-Net's takes a checkpoint's content too, which nobody gives it.
    def load_checkpoint(self, filename_or_checkpoint: str) -> None:  # ty: ignore[incompatible-method-override]
        """Read what nnU-Net reads; what an adapter checkpoint leaves out comes from its file."""
        if not self.was_initialized:
            with weights_follow():  # nnU-Net loads strictly
                self.initialize()
        weights = self.plans_manager.plans[PLANS_KEY]["weights"]
        file = self.resumed_from = Path(filename_or_checkpoint)
        with (
            misfit_in_one_line(file),
            completed(unwrap(self.network), weights, self.holds_base_weights),
        ):
            super().load_checkpoint(filename_or_checkpoint)
        self.holds_base_weights = True
        state = state_of(file)
        self.split = state.get("split")
        self.steps.losses = state.get("losses", [])


def _with_ours(transforms: Any) -> ComposeTransforms:
    steps: list[Any] = [EndsWithTrainer(), FindsLibrariesOnce(), transforms]
    return ComposeTransforms(steps)


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
