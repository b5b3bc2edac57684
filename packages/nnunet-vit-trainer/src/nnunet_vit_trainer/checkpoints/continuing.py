"""Going on with a run from its checkpoint."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, reason_of

from .base_weights import load_base_weights
from .content import fill_up, frozen_names, set_random_states
from .newest import unreadable

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
    from vit_backbone import ViTSegmentationModel


_OF_A_TRAINING = ("current_epoch", "logging", "_best_ema", "optimizer_state")
# How torch's errors begin: of a network, and of an optimizer.
_MISFITS = ("Error(s) in loading state_dict", "loaded state dict")


@contextlib.contextmanager
def completed(
    network: "ViTSegmentationModel", weights: dict[str, Any] | None, filled: bool
) -> Iterator[None]:
    """Complete what the network is told to load: nnU-Net loads strictly.

    Args:
        network: unwrapped, built from the plans.
        weights: of the plans; see `load_base_weights`.
        filled: whether the network holds what an adapter checkpoint leaves out.
    """

    def complete(_: nn.Module, state: dict[str, torch.Tensor], *__: Any) -> None:
        if not filled and frozen_names(network) - state.keys():
            load_base_weights(network, weights)
        fill_up(state, network)

    hook = network.register_load_state_dict_pre_hook(complete)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def misfit_in_one_line(file: Path) -> Iterator[None]:
    """Say of a checkpoint that is read meanwhile what of it the network or optimizer cannot take.

    Args:
        file: the checkpoint.

    Raises:
        UserError: its tensors are not the network's, or it holds nothing of a training.
    """
    try:
        yield
    except KeyError as error:
        if error.args[0] not in _OF_A_TRAINING:
            raise
        raise UserError(
            f"{file} holds nothing of its training ({error.args[0]} is missing), as exports for "
            "prediction do not; predict with it (nnUNetv2_predict)"
        ) from error
    except (RuntimeError, ValueError) as error:
        if not str(error).startswith(_MISFITS):
            raise
        raise UserError(
            f"{file} does not fit the network: {reason_of(error)}; it is of another version of the "
            "head or of a package: go on with that one, or train anew"
        ) from error


def state_of(file: Path) -> dict[str, Any]:
    """Return what our checkpoints hold beside nnU-Net's keys; nothing of stock nnU-Net's.

    Args:
        file: the checkpoint, of this user: it is not read as data only.

    Raises:
        UserError: it cannot be read.
    """
    try:  # lazily: tensors are read where they are used
        content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
        return content.get(PLANS_KEY, {})
    except Exception as error:  # a broken file raises whatever its bytes lead to, OSError too
        raise unreadable(file, error) from error


def go_on(trainer: "nnUNetTrainer_vit", file: Path) -> None:
    """Go on where a checkpoint's run stopped, with its random numbers.

    A checkpoint that is not ours (stock nnU-Net's) knows nothing of this.

    Args:
        trainer: ours, which has loaded the checkpoint's weights.
        file: the checkpoint.
    """
    state = state_of(file)  # of which nothing is kept
    trainer.began = state.get("began", 0.0)
    trainer._best_ema = _best_there(trainer, file.with_name("checkpoint_best.pth"))
    trainer.steps.watch.skipped = state.get("skipped_steps", 0)
    if trainer.average is not None and state.get("average") is not None:
        trainer.average.restore(state["average"])
    # With rank 0's random numbers all ranks would see the same batches.
    if not trainer.is_ddp and "random_states" in state:
        set_random_states(state["random_states"])


def _best_there(trainer: "nnUNetTrainer_vit", best: Path) -> float | None:
    """Return the moving average of the Dice that the run's checkpoint_best has, ``None`` of none.

    A run may be killed between checkpoint_latest and the checkpoint_best of the same epoch: the
    next epoch that is better than what lies there is the best one then.
    """
    if not best.is_file():
        return None
    content = torch.load(best, map_location="cpu", weights_only=False, mmap=True)
    if content.get(PLANS_KEY, {}).get("began", 0.0) != trainer.began:
        return None  # of the training before, which this one replaces
    known = trainer.logger.get_value("ema_fg_dice", step=None)
    return max(known[: content["current_epoch"]], default=None)
