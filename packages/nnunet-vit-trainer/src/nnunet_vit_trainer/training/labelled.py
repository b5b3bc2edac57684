"""With an ignore label, a group's cross-entropy is the mean over all labelled pixels, as alone."""

from typing import Any

import torch
import torch.distributed as dist
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss


def weigh_by_labelled(loss: DC_and_CE_loss | DC_and_BCE_loss, ignore_label: int) -> None:
    """Let nnU-Net's loss weigh a rank's cross-entropy by its share of the labelled pixels.

    nnU-Net takes each rank's mean over the rank's own, and the gradients' mean over the ranks: a
    pixel would count the more, the fewer others of its rank have a label. All ranks must call the
    loss equally often.

    Args:
        loss: one output's. Targets (B, 1, H, W); of regions (B, regions + 1, H, W), the last
            channel 1 where the label is to be ignored.
        ignore_label: in targets without regions.
    """
    weight = loss.weight_ce

    def weigh(_: torch.nn.Module, given: tuple[Any, ...]) -> None:
        target = given[1]
        regions = isinstance(loss, DC_and_BCE_loss)
        labelled = target[:, -1] == 0 if regions else target != ignore_label
        own = labelled.sum()
        of_all = own.clone()
        dist.all_reduce(of_all)
        loss.weight_ce = weight * dist.get_world_size() * own / of_all.clamp(min=1)

    loss.register_forward_pre_hook(weigh)
