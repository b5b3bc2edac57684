"""The function that plans files name as their network class."""

from typing import Any

from torch import nn

from vit_backbone import UserError, find_head

NETWORK_CLASS_NAME = f"{__name__}.build_network"


def build_network(
    input_channels: int,
    num_classes: int,
    deep_supervision: bool = False,
    *,
    head: str,
    strides: list[list[int]] | None = None,
    **factory_arguments: Any,
) -> nn.Module:
    """Build the network of a plans file, with random weights: it never looks for pretrained ones.

    nnU-Net calls this at the start of a training and, in a fresh process, at prediction; it then
    fills the network from a checkpoint.

    Args:
        input_channels: number of image channels.
        num_classes: number of output channels.
        deep_supervision: whether ``forward`` returns the auxiliary outputs too, which exist if
            the plans say ``auxiliary_outputs``.
        head: an installed head, or a dotted module.
        strides: for nnU-Net, which reads the scales of deep supervision here; not used.
        factory_arguments: what the head's ``create_segmentation_model`` takes beyond these.

    Raises:
        UserError: the head is not installed, or the plans have no auxiliary outputs.
    """
    if deep_supervision and not factory_arguments.get("auxiliary_outputs"):
        raise UserError(
            f"these plans have no auxiliary outputs of head {head!r} for deep supervision; "
            "use -tr nnUNetTrainerNoDeepSupervision_vit"
        )
    network = find_head(head)(
        num_classes=num_classes, in_channels=input_channels, pretrained=False, **factory_arguments
    )
    if deep_supervision:
        network.head.deep_supervision = True
    return network
