"""Going on with a run from its checkpoint."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnunet_vit_trainer.plans.derive import PLANS_KEY

from .base_weights import load_base_weights
from .content import fill_up, frozen_names, set_random_states

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
    from vit_backbone import ViTSegmentationModel


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


def go_on(trainer: "nnUNetTrainer_vit", file: Path) -> None:
    """Go on where a checkpoint's run stopped, with its random numbers.

    A checkpoint that is not ours (stock nnU-Net's) knows nothing of this.

    Args:
        trainer: ours, which has loaded the checkpoint's weights.
        file: the checkpoint.
    """
    # Lazily: the weights were read already, and what is here is not kept.
    content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    state = content.get(PLANS_KEY, {})
    trainer.began = state.get("began", 0.0)
    trainer.steps.watch.skipped = state.get("skipped_steps", 0)
    trainer.steps.losses = state.get("losses", [])
    if trainer.average is not None and state.get("average") is not None:
        trainer.average.restore(state["average"])
    # With rank 0's random numbers all ranks would see the same batches.
    if not trainer.is_ddp and "random_states" in state:
        set_random_states(state["random_states"])
