"""LoRA on a ViT's blocks (Hu et al., LoRA, ICLR 2022). The only module that imports peft."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from vit_backbone.errors import UserError
from vit_backbone.vits.attention import call_qkv
from vit_backbone.vits.plain import plain_vit, refuse_wrapped

from .lora_options import check_lora_options
from .patch_embedding import set_patch_embedding, trains_by_rule

DEFAULT_TARGETS = ("qkv",)


def enable_lora(
    backbone: nn.Module,
    rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    target_modules: Sequence[str] | None = None,
    *,
    use_dora: bool = False,
    use_rslora: bool = False,
) -> None:
    """Inject LoRA adapters into the blocks, in place, and freeze everything else of the backbone.

    Only modules inside ``blocks`` are adapted: a target ``proj`` never reaches the patch
    embedding's convolution. A patch embedding that was adapted to other channels than the weights'
    goes on training (`patch_embedding_trains`).

    Args:
        backbone: a timm ViT without adapters.
        rank: rank r of the update, at least 1.
        lora_alpha: the update is scaled by lora_alpha / rank; above 0.
        lora_dropout: dropout before the adapters, 0 to below 1.
        target_modules: last names of linear layers; ``None`` is ``["qkv"]``.
        use_dora: learn magnitude and direction apart (Liu et al., DoRA, ICML 2024).
        use_rslora: scale by lora_alpha / sqrt(rank) (Kalajdzievski, rsLoRA, 2023).

    Raises:
        UserError: impossible options, a model or wrapper instead of the backbone in it, adapters
            are there already, or no layer of the blocks has such a name.
    """
    check_lora_options(
        rank,
        lora_alpha,
        lora_dropout,
        target_modules,
        use_dora=use_dora,
        use_rslora=use_rslora,
    )
    refuse_wrapped(backbone)
    if has_lora(backbone):
        raise UserError("LoRA is enabled already; call disable_lora first")
    targets = list(target_modules or DEFAULT_TARGETS)
    linear = _linear_names(plain_vit(backbone).blocks)
    unknown = sorted(set(targets) - linear)
    if unknown:
        raise UserError(
            f"LoRA target_modules {unknown} match no linear layer of the blocks; "
            f"there are {sorted(linear)}"
        )
    call_qkv(backbone)
    names = "|".join(re.escape(name) for name in targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,  # ty: ignore[invalid-argument-type] - peft takes fractions too
        lora_dropout=lora_dropout,
        use_dora=use_dora,
        use_rslora=use_rslora,
        target_modules=rf"blocks\.\d+\.(?:.+\.)?(?:{names})",
    )
    inject_adapter_in_model(config, backbone)
    for module in backbone.modules():
        if isinstance(module, LoraLayer):  # peft's dropout begins in training mode
            module.train(module.get_base_layer().training)
    set_patch_embedding(backbone, frozen=False)


def _linear_names(blocks: nn.Module) -> set[str]:
    """Return the last names of the linear layers that are called, not gone around.

    timm's block that computes attention and MLP in parallel multiplies by ``in_proj``'s weight
    itself where it has biases to add: adapters there would train nothing.
    """
    modules: list[Any] = list(blocks.modules())
    around = {m.in_proj for m in modules if getattr(m, "mlp_bias", None) is not None}
    return {
        name.rsplit(".", 1)[-1]
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear) and module not in around
    }


def disable_lora(backbone: nn.Module) -> None:
    """Merge the adapters into the weights they adapt and remove them; without any, do nothing.

    The weights are merged in their own precision, under autocast too. They stay frozen, and a patch
    embedding that trained beside the adapters is frozen too, unless `create_backbone` was told that
    it trains (``train_patch_embedding``).

    Raises:
        UserError: a model or wrapper instead of the backbone in it, or an adapter with NaN or
            infinite values, or whose merged weights have such; nothing is merged then.
    """
    if not has_lora(backbone):
        return
    if not hasattr(backbone, "patch_embed"):  # torch.compile's wrapper shows what is in it
        refuse_wrapped(backbone)
    # Autocast, where it is on, would round what is merged.
    with torch.autocast(next(backbone.parameters()).device.type, enabled=False):
        _merge(backbone)
    set_patch_embedding(backbone, frozen=True)


def _merge(backbone: nn.Module) -> None:
    adapted = [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]
    for name, module in adapted:
        if not _is_finite(module):
            raise UserError(
                f"{name} has NaN or infinite values, in its adapter, below it or merged; nothing "
                "is merged: take an earlier checkpoint"
            )
    for name, module in adapted:
        module.merge(safe_merge=True)
        backbone.set_submodule(name, module.get_base_layer())


def _is_finite(module: Any) -> bool:
    """Say whether all values are finite, of an adapted layer and of a copy that is merged."""
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        return False
    merged = copy.deepcopy(module)
    merged.merge()
    return all(parameter.isfinite().all() for parameter in merged.parameters())


def drop_lora(backbone: nn.Module) -> None:
    """Remove the adapters and leave the weights as they were without; without any, do nothing.

    A patch embedding that trained beside the adapters stays as it was trained.
    """
    for name, module in list(backbone.named_modules()):
        if isinstance(module, LoraLayer):
            backbone.set_submodule(name, module.get_base_layer())


def has_lora(backbone: nn.Module) -> bool:
    """Say whether adapters are in place."""
    return any(isinstance(module, LoraLayer) for module in backbone.modules())


def adapter_state_dict(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Return what LoRA trained: the adapters and, where it trains too, the patch embedding.

    A copy in which nothing trains (a moving average, a frozen one) has the same.

    Raises:
        UserError: a model or wrapper instead of the backbone in it.
    """
    refuse_wrapped(backbone)
    embedding = plain_vit(backbone).patch_embed.parameters()
    trains = has_lora(backbone) and (
        trains_by_rule(backbone, frozen=False) or any(p.requires_grad for p in embedding)
    )
    return {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" in name or (trains and name.startswith("patch_embed."))
    }
