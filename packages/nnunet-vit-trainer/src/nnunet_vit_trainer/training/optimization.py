"""The optimizer: which rate and which weight decay each parameter gets, and how rates run."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from vit_backbone import ViTSegmentationModel

# An adapted patch embedding goes on training under LoRA. It is still pretrained, so it gets a rate
# for pretrained weights: on Dataset102 the validation loss after the first 50 steps was 0.77 at the
# head's rate and 0.60 at this one.
PATCH_EMBEDDING_LR_SCALE = 0.01
# Where torch's fused kernel is known to ask whether to take the step; see `training_step`.
FUSED_ON = {"cpu", "cuda"}
# nnU-Net's own.
SGD_MOMENTUM = 0.99
_TOKENS = r"(pos_embed|cls_token|reg_token|dist_token|mask_token)$"

OPTIMIZER_KEYS = (
    "initial_lr",
    "weight_decay",
    "optimizer",
    "betas",
    "backbone_lr_scale",
    "layer_decay",
    "head_first_epochs",
)
"""Of a recipe, the keys that `build_optimizer` takes."""


def build_optimizer(
    network: "ViTSegmentationModel",
    *,
    initial_lr: float,
    weight_decay: float,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    betas: Sequence[float] = (0.9, 0.98),
    backbone_lr_scale: float = 1.0,
    layer_decay: float = 1.0,
    head_first_epochs: int = 0,
) -> torch.optim.Optimizer:
    """Make an optimizer over what trains; see `parameter_groups` for the last three.

    Args:
        network: a `ViTSegmentationModel`.
        initial_lr: the head's rate at the start, above 0.
        weight_decay: decoupled with AdamW, added to the gradient with SGD; at least 0.
        optimizer: ``adamw`` (fused, on CUDA and CPUs), or ``sgd`` with nnU-Net's Nesterov momentum
            of 0.99.
        betas: of AdamW.
        backbone_lr_scale: of the backbone's rate.
        layer_decay: of the rate from each block to the one before it.
        head_first_epochs: epochs before the backbone wakes.
    """
    groups = parameter_groups(
        network,
        initial_lr=initial_lr,
        weight_decay=weight_decay,
        backbone_lr_scale=backbone_lr_scale,
        layer_decay=layer_decay,
        head_first_epochs=head_first_epochs,
    )
    if optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=SGD_MOMENTUM, nesterov=True)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    first, second = betas
    adamw = torch.optim.AdamW(groups, betas=(first, second), fused=devices <= FUSED_ON)
    adamw.register_load_state_dict_pre_hook(_keep_kernel)
    return adamw


def _keep_kernel(adamw: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Go on with one's own kernel, whichever the state's groups name (0.1.0's: not the fused)."""
    kernel = {name: adamw.defaults[name] for name in ("fused", "foreach")}
    return state | {"param_groups": [group | kernel for group in state["param_groups"]]}


def parameter_groups(
    network: "ViTSegmentationModel",
    *,
    initial_lr: float,
    weight_decay: float,
    backbone_lr_scale: float = 1.0,
    layer_decay: float = 1.0,
    head_first_epochs: int = 0,
) -> list[dict[str, Any]]:
    """Group what trains by its rate and its weight decay, the head first.

    The backbone's rate is ``initial_lr * backbone_lr_scale``, times ``layer_decay`` for each layer
    that lies above (Bao et al., BEiT, ICLR 2022: the final norm is the top layer, the
    embeddings the lowest). A patch embedding that alone of the backbone's own weights trains gets
    `PATCH_EMBEDDING_LR_SCALE` of the backbone's rate. Norms, biases, LayerScale and everything
    else of one dimension, position embedding, CLS and register tokens get no weight decay.

    timm's `param_groups_layer_decay` is not used: it puts register tokens on the top layer and
    decays them.

    Args:
        network: a `ViTSegmentationModel`.
        initial_lr: the head's rate.
        weight_decay: of what decays.
        backbone_lr_scale: above 0.
        layer_decay: above 0, at most 1.
        head_first_epochs: the backbone's groups say so as ``first_epoch``.

    Returns:
        Groups with ``name``, ``params``, ``lr``, ``weight_decay`` and ``first_epoch``.
    """
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    depth = len(network.backbone.blocks)
    blocks_train = any(n.startswith("backbone.blocks.") and ".lora_" not in n for n in trainable)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in trainable.items():
        of_backbone = name.startswith("backbone.")
        layer = layer_of(name.removeprefix("backbone."), depth) if of_backbone else depth + 1
        scale = (backbone_lr_scale if of_backbone else 1.0) * layer_decay ** (depth + 1 - layer)
        part = "backbone" if of_backbone else "head"
        if of_backbone and layer_decay != 1.0:
            part = f"backbone layer {layer}"
        if ".patch_embed." in name and not blocks_train:
            part, scale = "adapted patch embedding", backbone_lr_scale * PATCH_EMBEDDING_LR_SCALE
        decays = parameter.ndim > 1 and not re.search(_TOKENS, name)
        group = groups.setdefault(
            (part, decays),
            {
                "name": part if decays else f"{part}, no decay",
                "params": [],
                "lr": initial_lr * scale,
                "weight_decay": weight_decay if decays else 0.0,
                "first_epoch": head_first_epochs if of_backbone else 0,
            },
        )
        group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: not group["name"].startswith("head"))


def layer_of(name: str, depth: int) -> int:
    """Number a backbone's parameter by its layer: 0 embeddings, 1 to depth blocks, then the norm.

    Args:
        name: inside of the backbone.
        depth: number of blocks.
    """
    block = re.match(r"blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return depth + 1 if re.match(r"(fc_)?norm\.", name) else 0


class Schedule:
    """Warm-up and decay per epoch, each parameter group from its own rate and its first epoch.

    nnU-Net's schedulers write one rate into every group. A rate follows from the epoch alone, so
    resuming needs no state, and a resumed run may change ``num_epochs``.

    Args:
        optimizer: its groups' rates are the full ones; ``first_epoch`` of a group is when it
            wakes (until then its rate is 0) and begins its own warm-up.
        num_epochs: the epochs after which the rates are 0.
        warmup_epochs: of linear increase, at least 0.
        kind: ``poly`` (nnU-Net's, exponent 0.9) or ``cosine``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        warmup_epochs: int = 0,
        kind: Literal["poly", "cosine"] = "poly",
    ) -> None:
        self.optimizer = optimizer
        self.num_epochs = num_epochs
        self.warmup_epochs = warmup_epochs
        self.kind = kind
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def step(self, epoch: int) -> None:
        """Set every group's rate for an epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor(epoch, group.get("first_epoch", 0))

    def factor(self, epoch: int, first_epoch: int = 0) -> float:
        """Return the share of its full rate that a group has in an epoch, 0 to 1."""
        if epoch < first_epoch:
            return 0.0
        warmed_up = min(1.0, (epoch - first_epoch + 1) / (self.warmup_epochs + 1))
        decaying = max(0, epoch - self.warmup_epochs) / (self.num_epochs - self.warmup_epochs)
        if self.kind == "cosine":
            return warmed_up * (1 + math.cos(math.pi * decaying)) / 2
        return warmed_up * (1 - decaying) ** 0.9


def default_warmup(num_epochs: int) -> int:
    """Return a twentieth of the epochs: Primus warms up for 50 of nnU-Net's 1000."""
    return num_epochs // 20
