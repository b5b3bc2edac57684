"""Which backbone a run builds, and from which weight file: asked for, or recorded in plans."""

import os
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.schema import ViTModelConfig
from nnunet_vit_trainer.plans.derive import PLANS_KEY, statistics_of
from vit_backbone import MODEL_CONFIGS, UserError, fit_to_checkpoint, quoted, resolve_backbone
from vit_backbone.weights.once import hash_ahead

_PATCH_WEIGHT = "backbone.patch_embed.proj.weight"


def asked_backbone(
    model: ViTModelConfig, pretrained_weights: str | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Say what `find_backbone` most likely finds, without looking: a weight file may tell more.

    Args:
        model: the config's section.
        pretrained_weights: nnU-Net's -pretrained_weights.
    """
    asked = resolve_backbone(model.backbone, model.backbone_size)
    has_weights = pretrained_weights or model.checkpoint_path or model.pretrained is not False
    weights = {"file": "", "sha256": ""} if has_weights else None
    return {"asked": asked, "name": asked, "options": {}}, weights


def hash_weights_ahead(model: ViTModelConfig, pretrained_weights: str | None) -> None:
    """Begin to hash the file that `find_backbone` will name, where it is one of this machine.

    Args:
        model: the config's section.
        pretrained_weights: see there.
    """
    file = os.path.expanduser(pretrained_weights or model.checkpoint_path or "")
    if os.path.isfile(file):  # Path's raises for some paths that a user may give
        hash_ahead(Path(file))


def find_backbone(
    model: ViTModelConfig, pretrained_weights: str | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Find the file that a new training starts from, and the backbone that it asks for.

    Args:
        model: the config's section.
        pretrained_weights: nnU-Net's -pretrained_weights, instead of the config's weights.

    Returns:
        ``backbone`` and ``weights`` of `derive_plans`.

    Raises:
        UserError: weights that are missing, unreadable or of another backbone.
    """
    from vit_backbone import (
        find_weights,
        pretrained_statistics,
        read_checkpoint,
        sha256_of,
    )

    asked = resolve_backbone(model.backbone, model.backbone_size)
    if pretrained_weights:
        file = Path(pretrained_weights)
        backbone = _backbone_of(file, asked)
        weights = {"file": str(file.resolve()), "sha256": sha256_of(file)}
        return backbone, weights | {"nnunet_checkpoint": True}
    found = find_weights(model.backbone, asked, model.checkpoint_path, pretrained=model.pretrained)
    checkpoint = read_checkpoint(found) if found else None
    name, options = fit_to_checkpoint(model.backbone, model.backbone_size, checkpoint)
    weights = None
    if found:
        weights = {"file": str(found.resolve()), "sha256": sha256_of(found)}
    in_chans = (checkpoint.in_chans if checkpoint else None) or 3
    backbone: dict[str, Any] = {
        "asked": asked,
        "name": name,
        "options": options,
        "in_chans": in_chans,
    }
    statistics = pretrained_statistics(name) if found else None
    # A family's files are its own; only its name is timm's.
    if model.backbone not in MODEL_CONFIGS and statistics not in (None, statistics_of(backbone)):
        backbone["statistics"] = statistics
    return backbone, weights


def as_recorded(
    backbone: dict[str, Any], weights: dict[str, Any] | None, existing: dict[str, Any]
) -> dict[str, Any]:
    """Take a backbone as results of the same weights have it, maybe from an earlier release.

    Args:
        backbone: of `find_backbone`, like the next.
        weights: the file and its sha256.
        existing: the plans of the results.
    """
    ours = existing[PLANS_KEY]
    recorded = ours.get("backbone", {})
    sha256 = [(w or {}).get("sha256") for w in (weights, ours.get("weights"))]
    same = sha256[0] == sha256[1] and recorded.get("asked") == backbone["asked"]
    return recorded if same else backbone


def recorded_backbone(
    model: ViTModelConfig, existing: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Take what the weight file decided from the results: the file itself may be gone.

    Adapter checkpoints need it again: where it was moved, the config says where to.

    Args:
        model: the config's section.
        existing: the plans of the results.

    Raises:
        UserError: the config names a file of other weights.
    """
    ours = existing[PLANS_KEY]
    weights = ours["weights"]
    asked = resolve_backbone(model.backbone, model.backbone_size)
    if weights and model.checkpoint_path:
        weights = _moved(weights, Path(os.path.expanduser(model.checkpoint_path)).resolve())
    return ours["backbone"] | {"asked": asked}, weights


def _moved(weights: dict[str, Any], asked: Path) -> dict[str, Any]:
    """Name the file that the config asks for, if it holds the recorded weights."""
    from nnunet_vit_trainer.checkpoints.base_weights import NNUNET_CHECKPOINT
    from vit_backbone import sha256_of

    file, expected = weights.get("file", ""), weights.get("sha256")
    # Path's raises where a folder on the way is closed to this user.
    if str(asked) == file or not os.path.exists(asked):  # noqa: PTH110
        return weights
    if (found := sha256_of(asked)) != expected:
        if weights.get(NNUNET_CHECKPOINT):  # the config's own file was not what training began with
            return weights
        raise UserError(
            f"model.checkpoint_path {asked} has sha256 {found}, and these results were trained "
            f"from a file of sha256 {expected}: give that one, or rename the config to train anew"
        )
    return weights if os.path.exists(file) else weights | {"file": str(asked)}  # noqa: PTH110


def _backbone_of(checkpoint_file: Path, asked: str) -> dict[str, Any]:
    """Take what a weight file decided from the plans in an nnU-Net checkpoint of ours."""
    from nnunet_vit_trainer.checkpoints.content import read_safely

    content = read_safely(checkpoint_file, mapped=True)
    init_args = content.get("init_args")
    plans = init_args.get("plans") if isinstance(init_args, dict) else None
    ours = plans.get(PLANS_KEY) if isinstance(plans, dict) else None
    backbone = ours.get("backbone") if isinstance(ours, dict) else None
    if not isinstance(backbone, dict) or not {"asked", "name", "options"} <= backbone.keys():
        raise UserError(f"-pretrained_weights {checkpoint_file} is not from a training of ours")
    if content.get("rebuilt_from"):
        raise UserError(
            f"-pretrained_weights {checkpoint_file} holds only what was trained "
            "(train.checkpoint: adapter); give the run's checkpoint_final.pth"
        )
    if backbone["asked"] != asked:
        raise UserError(
            f"-pretrained_weights {checkpoint_file} holds backbone {quoted(backbone['asked'])}, "
            f"the config asks for {asked!r}"
        )
    # All of it was trained on, or adapted to, the images' own channels.
    held = content["network_weights"]
    weight = held.get(_PATCH_WEIGHT) if isinstance(held, dict) else None
    if weight is None or getattr(weight, "ndim", 0) != 4:
        raise UserError(f"-pretrained_weights {checkpoint_file} has no patch embedding")
    return backbone | {"in_chans": weight.shape[1]}
