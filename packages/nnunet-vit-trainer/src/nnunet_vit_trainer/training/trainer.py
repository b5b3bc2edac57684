"""nnU-Net's trainer for a ViT: the overrides that a run demands; the logic is in functions."""

import gc
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nnunet_vit_trainer.checkpoints.content import random_states, unwrap
from nnunet_vit_trainer.checkpoints.continuing import go_on
from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.plans.derive import PLANS_KEY

from .averaging import WeightAverage
from .ending.stop import LastEpoch, Stopped, asked_by, is_there, signals_wait, stop_file_of
from .from_plans import BuiltFromPlans
from .group import largest_of_ranks
from .oversight.cases import naming_bad_cases, refuse_infinite, warn_of_bad_cases
from .oversight.peak import peak_line
from .oversight.progress import Figures, is_shown
from .oversight.showing import conclude_validation
from .oversight.split import checked_split, keep_masks_of
from .oversight.validation import validated_whole
from .oversight.watch import plateau_hint, refuse_idle_lora
from .step import to_device, training_step


class nnUNetTrainer_vit(BuiltFromPlans):
    """Train the network and by the recipe that derived plans carry, with deep supervision.

    The constructor takes exactly nnU-Net's arguments: the base class looks each of them up.

    Raises:
        UserError: plans that were not derived from a config.
    """

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
            write_record(self.plans_manager.plans[PLANS_KEY], Path(self.output_folder_base))
        if self.resumed_from is not None:
            go_on(self, self.resumed_from)

    def run_training(self) -> None:
        try:
            super().run_training()
        except LastEpoch:
            self.on_train_end()
        finally:
            self.display.close()

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        signals_wait()

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
        taken = [loss for loss in self.steps.losses if math.isfinite(loss)]
        if skipped := len(self.steps.losses) - len(taken):
            self.print_to_log_file(
                f"{skipped} steps of this epoch were skipped: the loss or a gradient was not "
                f"finite ({self.steps.watch.skipped} in the whole run)"
            )
        losses = taken or self.steps.losses
        super().on_train_epoch_end([{"loss": np.float32(loss)} for loss in losses])

    def on_validation_epoch_start(self) -> None:
        self.before_validation = random_states()
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
        self.steps.losses, self.before_validation = [], None

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
            with validated_whole(folder, self.local_rank == 0, self.validated):
                super().perform_actual_validation(save_probabilities)
        finally:
            self.network = trained
        # Other ranks would read the summary half written.
        if self.local_rank == 0:
            conclude_validation(self)


class nnUNetTrainerNoDeepSupervision_vit(nnUNetTrainer_vit):
    """The same without deep supervision: the default."""

    deep_supervised = False


def write_record(derived: dict[str, Any], folder: Path) -> None:
    """Write what derived plans carry beside nnU-Net's as ``vit.yaml``, for people to read.

    Args:
        derived: what lies under the plans' key ``vit``.
        folder: of the results of all folds.
    """
    with written_whole(folder / "vit.yaml") as unfinished:
        unfinished.write_text(yaml.safe_dump(derived, sort_keys=False), encoding="utf-8")
