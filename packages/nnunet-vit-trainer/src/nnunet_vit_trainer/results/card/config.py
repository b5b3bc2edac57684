"""The card of a config: what would be trained by it."""

import os
import shlex
from pathlib import Path

from nnunet_vit_trainer.checkpoints.releases import Release, family_of, release_of
from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER
from nnunet_vit_trainer.config.reading import find_config, load_config
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.plans.architecture import resolved_options
from nnunet_vit_trainer.plans.derive import derived_plans_name, resolved_recipe
from vit_backbone import MODEL_CONFIGS, UserError, reason_of, resolve_backbone, shorten

from . import schema
from .facts import weights_of
from .papers import papers_of

_ONCE_READ = (
    "the release of a weight file for this backbone, DINOv3's or MedDINOv3's, and its licence are "
    "known once the file was trained with"
)
_CONFIGURATION = "2d"


def card_of_config(file_or_name: str | Path) -> schema.ModelCard:
    """Make the card of a config, without building anything.

    Args:
        file_or_name: a YAML file, or the name of a shipped config.

    Raises:
        UserError: one that `load_config` refuses, or a weight file that cannot be read.
    """
    config = load_config(file_or_name)
    model = config.model
    timm_name = resolve_backbone(model.backbone, model.backbone_size)
    family = family_of(model.backbone, timm_name)
    # MedDINOv3's are told from DINOv3's by what is in the file, which is not opened here.
    unread = family == "dinov3" and bool(model.checkpoint_path)
    release = None if unread else release_of(family, timm_name, {})
    weights, notes = _weights(config, release)
    lora = {name: value for name, value in vars(config.lora).items() if name != "enabled"}
    return schema.ModelCard(
        kind="config",
        name=find_config(file_or_name).stem,
        trainer=DEFAULT_TRAINER,
        plans=derived_plans_name(DEFAULT_PLANS, find_config(file_or_name).stem),
        configuration=_CONFIGURATION,
        backbone=schema.Backbone(
            family=family,
            name=timm_name,
            tuned=config.tune,
            lora=lora if config.tune == "lora" else None,
            input_norm=str(model.input_norm),
        ),
        weights=weights,
        head=schema.Head(
            name=model.model_path,
            options=resolved_options(model.model_path, model.decoder.options()),
        ),
        recipe=resolved_recipe(config, pretrained=weights is not None),
        papers=papers_of(
            release if weights else None,
            model.model_path,
            model.decoder.options(),
            lora if config.tune == "lora" else None,
        ),
        predict=[f"nnUNetv2_train_vit DATASET 2d 0 --config {shlex.quote(str(file_or_name))}"],
        notes=[*notes, _ONCE_READ] if unread else notes,
    )


def _weights(
    config: ViTnnUNetConfig, release: Release | None
) -> tuple[schema.Weights | None, list[str]]:
    """Say what the training would begin with, and what is missing for it."""
    path = config.model.checkpoint_path
    if not path and config.model.pretrained is False:
        return None, []
    if not path:
        needed = (
            config.model.backbone in MODEL_CONFIGS
            and not (MODEL_CONFIGS[config.model.backbone]["on_hub"])
        )
        missing = "these weights are on no hub: give your copy as model.checkpoint_path"
        return weights_of(release, None, None), [missing] if needed else []
    file = Path(os.path.expanduser(path))
    there = os.path.isfile(file) or os.path.isdir(file)  # noqa: PTH112 - whatever the path is
    sha256 = _sha256(file) if there else None
    missing = "model.checkpoint_path is no file or folder here"
    return weights_of(release, path, sha256), [] if sha256 else [missing]


def _sha256(file: Path) -> str:
    from vit_backbone import sha256_of  # which brings torch

    try:
        return sha256_of(file)
    except OSError as error:
        raise UserError(f"{shorten(file, 200)} cannot be read: {reason_of(error)}") from error
