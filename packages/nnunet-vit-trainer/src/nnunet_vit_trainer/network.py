"""The function that plans files name as their network class."""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vit_backbone import UserError, find_head, options_of_old_plans

if TYPE_CHECKING:
    from vit_backbone import ViTSegmentationModel

NETWORK_CLASS_NAME = f"{__name__}.build_network"


def build_network(
    input_channels: int,
    num_classes: int,
    deep_supervision: bool = False,
    *,
    head: str,
    strides: list[list[int]] | None = None,
    allow_hybrid: bool = True,
    **factory_arguments: Any,
) -> "ViTSegmentationModel":
    """Build the network of a plans file, with random weights: it never looks for pretrained ones.

    nnU-Net calls this at the start of a training and, in a fresh process, at prediction; it then
    fills the network from a checkpoint. Options that plans do not name are off, or what 0.1.0
    built where that was another (`_with_old_meaning`).

    Args:
        input_channels: number of image channels.
        num_classes: number of output channels.
        deep_supervision: whether ``forward`` returns the auxiliary outputs too, which exist if
            the plans say ``auxiliary_outputs``.
        head: an installed head, or a module.
        strides: for nnU-Net, which reads the scales of deep supervision here; not used.
        allow_hybrid: build what 0.1.0 trained and later versions refuse; see `create_backbone`.
        factory_arguments: what the head's ``create_segmentation_model`` takes beyond these.

    Raises:
        UserError: the head is not installed, or the plans have no auxiliary outputs.
    """
    if deep_supervision and not factory_arguments.get("auxiliary_outputs"):
        raise UserError(
            f"these plans have no auxiliary outputs of head {head!r} for deep supervision; "
            "use -tr nnUNetTrainerNoDeepSupervision_vit"
        )
    factory = find_head(head)
    network = factory(
        num_classes=num_classes,
        in_channels=input_channels,
        pretrained=False,
        **_with_old_meaning(factory, input_channels, allow_hybrid, factory_arguments),
    )
    if deep_supervision:
        network.head.deep_supervision = True
    return network


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Let networks be built meanwhile on torch's meta device, where parameters take no memory."""
    import torch

    # timm is imported before: it brings torch's compiler, which torch 2.6 cannot import there.
    importlib.import_module("vit_backbone.backbone")
    with torch.device("meta"):
        yield


def _with_old_meaning(
    factory: Callable[..., Any],
    input_channels: int,
    allow_hybrid: bool,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    """Add what plans of 0.1.0 leave unnamed: adapted patch embeddings trained, hybrids passed."""
    arguments = options_of_old_plans(factory) | arguments
    if "backbone_options" in inspect.signature(factory).parameters:
        old = {"train_patch_embedding": input_channels != 3, "allow_hybrid": allow_hybrid}
        arguments["backbone_options"] = old | (arguments.get("backbone_options") or {})
    return arguments
