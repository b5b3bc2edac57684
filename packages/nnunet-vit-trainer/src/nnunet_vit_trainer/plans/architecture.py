"""The ``architecture`` of derived plans: our builder, with the whole model's options resolved."""

import inspect
from typing import Any

from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from vit_backbone import UserError

# Stock nnU-Net predicts under float16 autocast; the network runs what it was trained in.
_FLOAT16_AS = {"float16": "float16", "float32": "float32"}


def architecture_of(
    config: ViTnnUNetConfig,
    timm_name: str,
    file_options: dict[str, Any] | None = None,
    input_norm: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn a config into the ``architecture`` of a plans file, everything resolved.

    Args:
        config: the checked config.
        timm_name: the timm name of its backbone.
        file_options: what the weight file asks for, and ``train_patch_embedding``.
        input_norm: the arguments of `vit_backbone.segmentation.input_norm.InputNorm`.
    """
    from nnunet_vit_trainer.network import NETWORK_CLASS_NAME

    model, lora = config.model, config.lora
    tune = config.tune
    last_blocks = int(tune.removeprefix("last_")) if tune.startswith("last_") else 0
    options = {
        **(file_options or {}),
        "patch_size": model.patch_size,
        "indices": model.layer_indices,
        "input_norm": input_norm,
        "train_last_blocks": last_blocks,
        "use_dora": lora.dora,
        "use_rslora": lora.rslora,
        "drop_path_rate": config.train.drop_path_rate,
        "float16_as": _FLOAT16_AS.get(config.train.amp_dtype),
    }
    # Only what differs from the default: a head that predates an option still builds.
    given = {n: value for n, value in options.items() if value or n == "train_patch_embedding"}
    _refuse_untaken(model.model_path, given)
    return {
        "network_class_name": NETWORK_CLASS_NAME,
        "arch_kwargs": {
            "head": model.model_path,
            "backbone_name": timm_name,
            "freeze_backbone": tune == "frozen" or last_blocks > 0,
            "use_lora": tune == "lora",
            "lora_rank": lora.r,
            "lora_alpha": lora.lora_alpha,
            "lora_dropout": lora.lora_dropout,
            "lora_target_modules": lora.target_modules,
            **({"backbone_options": given} if given else {}),
            **resolved_options(model.model_path, model.decoder.options()),
        },
        "_kw_requires_import": [],
    }


def _refuse_untaken(head: str, backbone_options: dict[str, Any]) -> None:
    """Refuse options that a head's factory would ignore: it may take any name and drop it.

    What follows from the images' channels no one asked for: it is taken away, in place.
    """
    from vit_backbone import find_head

    parameters = inspect.signature(find_head(head)).parameters
    if "backbone_options" not in parameters:
        backbone_options.pop("train_patch_embedding", None)
    if backbone_options and "backbone_options" not in parameters:
        raise UserError(
            f"head {head!r} does not take backbone_options, so {', '.join(backbone_options)} "
            "cannot be given; see docs/write-a-head.md"
        )


def auxiliary_outputs(head: str) -> dict[str, Any]:
    """Return the arguments that give a head its auxiliary outputs, and nnU-Net their scales.

    Raises:
        UserError: the head has none.
    """
    from vit_backbone import deep_supervision_strides, find_head

    strides = deep_supervision_strides(find_head(head))
    if strides is None:
        raise UserError(
            f"head {head!r} has no deep supervision; use -tr nnUNetTrainerNoDeepSupervision_vit"
        )
    # nnU-Net makes the scales from all strides but the last.
    return {"auxiliary_outputs": True, "strides": [[s, s] for s in (*strides, 1)]}


def resolved_options(head: str, given: dict[str, Any]) -> dict[str, Any]:
    """Complete a head's options with its defaults, so that a later default changes no old plans."""
    from vit_backbone import find_head, head_options

    options = head_options(find_head(head))
    values = {n: p.default for n, p in options.items() if p.default is not p.empty} | given
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
