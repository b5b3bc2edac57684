"""Which backbone a run builds, and from which weight file: asked for, or recorded in plans."""

from pathlib import Path
from typing import Any

from vit_backbone import UserError, fit_to_checkpoint, resolve_backbone

from .config import ViTModelConfig
from .plans import PLANS_KEY


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
    from vit_backbone import find_weights, read_checkpoint, sha256_of

    asked = resolve_backbone(model.backbone, model.backbone_size)
    if pretrained_weights:
        file = Path(pretrained_weights)
        weights = {"file": str(file.resolve()), "sha256": sha256_of(file)}
        return _backbone_of(file, asked), weights | {"nnunet_checkpoint": True}
    found = find_weights(model.backbone, asked, model.checkpoint_path, pretrained=model.pretrained)
    checkpoint = found and read_checkpoint(found)
    name, options = fit_to_checkpoint(model.backbone, model.backbone_size, checkpoint)
    weights = found and {"file": str(found.resolve()), "sha256": sha256_of(found)}
    in_chans = (checkpoint.in_chans if checkpoint else None) or 3
    return {"asked": asked, "name": name, "options": options, "in_chans": in_chans}, weights


def recorded_backbone(
    model: ViTModelConfig, existing: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Take what the weight file decided from the results: the file itself may be gone.

    Adapter checkpoints need it again: where it was moved, the config says where to.

    Args:
        model: the config's section.
        existing: the plans of the results.
    """
    ours = existing[PLANS_KEY]
    weights = ours["weights"]
    asked = resolve_backbone(model.backbone, model.backbone_size)
    if weights and model.checkpoint_path and not Path(weights["file"]).exists():
        moved = Path(model.checkpoint_path).expanduser().resolve()
        weights = weights | {"file": str(moved)}
    return ours["backbone"] | {"asked": asked}, weights


def _backbone_of(checkpoint_file: Path, asked: str) -> dict[str, Any]:
    """Take what a weight file decided from the plans in an nnU-Net checkpoint of ours."""
    import torch

    # nnU-Net reads this same file the same way; only a checkpoint of one's own is given here.
    content = torch.load(checkpoint_file, map_location="cpu", weights_only=False, mmap=True)
    ours = content.get("init_args", {}).get("plans", {}).get(PLANS_KEY)
    if ours is None:
        raise UserError(f"-pretrained_weights {checkpoint_file} is not from a training of ours")
    if content.get("rebuilt_from"):
        raise UserError(
            f"-pretrained_weights {checkpoint_file} holds only what was trained "
            "(train.checkpoint: adapter); give the run's checkpoint_final.pth"
        )
    if ours["backbone"]["asked"] != asked:
        raise UserError(
            f"-pretrained_weights {checkpoint_file} holds backbone {ours['backbone']['asked']!r}, "
            f"the config asks for {asked!r}"
        )
    # All of it was trained on, or adapted to, the images' own channels.
    weight = content["network_weights"]["backbone.patch_embed.proj.weight"]
    return ours["backbone"] | {"in_chans": weight.shape[1]}
