"""The weights that a run builds on: the file that its plans name by path and sha256.

What was not trained need not be in a checkpoint: it is rebuilt from that file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vit_backbone import UserError, load_weights, sha256_of
from vit_backbone.vits.unfilled import refuse_unfilled

from .content import frozen_names, read_safely

if TYPE_CHECKING:
    from vit_backbone import ViTSegmentationModel

NNUNET_CHECKPOINT = "nnunet_checkpoint"
"""A key of plans' ``weights``: the file is an nnU-Net checkpoint (from -pretrained_weights)."""


def load_base_weights(network: "ViTSegmentationModel", weights: dict[str, Any] | None) -> None:
    """Fill what is frozen in a network from the file that its training began with.

    Args:
        network: unwrapped, built from the plans.
        weights: ``weights`` of the plans: ``file`` and ``sha256``.

    Raises:
        UserError: the file is not there, or is another one.
    """
    file = find_base_weights(weights)
    assert weights is not None  # it was refused
    if not weights.get(NNUNET_CHECKPOINT):
        load_weights(network.backbone, file)
        return
    content = read_safely(file)
    own = network.state_dict()
    with torch.no_grad():
        for name in frozen_names(network):
            tensor = content["network_weights"].get(name)
            if tensor is None or tensor.shape != own[name].shape:
                raise UserError(f"{file} holds no {name} of shape {tuple(own[name].shape)}")
            own[name].copy_(tensor)


def load_pretrained(network: "ViTSegmentationModel", weights: dict[str, Any]) -> str:
    """Fill the backbone of a new network with what its plans were derived from.

    Args:
        network: unwrapped, built from the plans.
        weights: see `load_base_weights`.

    Returns:
        What was loaded, in one line.

    Raises:
        UserError: the file is not there, does not fit, or is not the one any more.
    """
    report = load_weights(network.backbone, weights["file"])
    if report.sha256 != weights["sha256"]:
        raise UserError(
            f"{report.file} is not the file that this run was prepared with: its sha256 is "
            f"{report.sha256}, that of the plans {weights['sha256']}; start anew, with one file "
            "for all processes and machines"
        )
    refuse_unfilled(network)
    return report.line()


def find_base_weights(
    weights: dict[str, Any] | None, option: str = "model.checkpoint_path"
) -> Path:
    """Return the weight file of the plans once it is sure that it is the same.

    Args:
        weights: see `load_base_weights`.
        option: where a user says where the file is, for messages.

    Raises:
        UserError: the file is not there, or is another one.
    """
    said = weights or {}
    try:
        file, expected = Path(said["file"]), said["sha256"]
    except (TypeError, KeyError) as error:
        raise UserError("plans.json does not say file and sha256 of the base weights") from error
    if not file.exists():
        raise UserError(
            f"the weights that this checkpoint leaves out are not at {file} (sha256 {expected}); "
            f"put the file there, or give its path as {option}"
        )
    if (found := sha256_of(file)) != expected:
        raise UserError(
            f"{file} has sha256 {found}; this checkpoint leaves out the weights of the file with "
            f"sha256 {expected}; give that file"
        )
    return file
