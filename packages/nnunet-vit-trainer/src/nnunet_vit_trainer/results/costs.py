"""What a network costs by its plans: counted on torch's meta device, where nothing is computed."""

import contextlib
import copy
import inspect
import io
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nnunet_vit_trainer.checkpoints.model_folder import network_of
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, reason_of, shorten


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        trained: parameters that a training changes.
        tile: sides of the tile that it takes, in pixels or voxels.
        flop: floating-point operations of one forward pass of it (a multiply-add is two).
    """

    trained: int
    tile: tuple[int, ...]
    flop: int


def forward_flop(network: nn.Module, image: torch.Tensor) -> int:
    """Count the floating-point operations of one forward pass (a multiply-add is two).

    Attention is written out, which may take more memory than training does.
    """
    counter = FlopCounterMode(display=False)
    # Written out as matrix products: the counter does not know every fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(image)
    return counter.get_total_flops()


def costs_of(
    plans: dict[str, Any], dataset: dict[str, Any], trainer: str, configuration: str
) -> Costs:
    """Count what the network of a results folder costs, ours or stock nnU-Net's.

    Args:
        plans: the folder's.
        dataset: the content of its ``dataset.json``.
        trainer: the trainer's name, which may build a network of its own.
        configuration: of the plans.

    Raises:
        UserError: the network cannot be built here.
    """
    try:
        manager = PlansManager(copy.deepcopy(plans))
        settings = manager.get_configuration(configuration)
        channels = determine_num_input_channels(manager, settings, dataset)
        if PLANS_KEY in plans:
            network = network_of(plans, dataset, in_memory=False)
            trained = _trained(network_of(_as_trained(plans), dataset, in_memory=False))
        else:
            network = _stock_network(trainer, manager, settings, dataset, channels)
            trained = _trained(network)
        tile = tuple(settings.patch_size)
        image = torch.empty((1, channels, *tile), device="meta")
        return Costs(trained, tile, forward_flop(network.eval(), image))
    except UserError:
        raise
    except Exception as error:  # whatever an architecture, or a trainer of one's own, runs into
        raise UserError(
            f"its network is not counted: {type(error).__name__}: {reason_of(error)}"
        ) from error


def _trained(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _as_trained(plans: dict[str, Any]) -> dict[str, Any]:
    """Give merged plans their adapters back: the network holds none any more, but they trained."""
    plans = copy.deepcopy(plans)
    if plans[PLANS_KEY].get("model", {}).get("tune") == "lora":
        (settings,) = plans["configurations"].values()
        settings["architecture"]["arch_kwargs"]["use_lora"] = True
    return plans


def _stock_network(
    trainer: str, manager: Any, settings: Any, dataset: dict[str, Any], channels: int
) -> nn.Module:
    """Build as nnU-Net's predictor does: by the trainer, in the old form of the call or the new."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells where it looks
            build = recursive_find_trainer_class_by_name(trainer).build_network_architecture
    except RuntimeError as error:  # its text has paths of this machine
        raise UserError(
            f"its network is not counted: trainer {shorten(trainer, 60)} is not installed here"
        ) from error
    old = (
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
    )
    new = (manager, settings)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    given = new if "plans_manager" in inspect.signature(build).parameters else old
    with torch.device("meta"):
        return build(*given, channels, heads, enable_deep_supervision=False)
