"""The card of a config: what would be trained by it."""

import hashlib
import os
from pathlib import Path

from nnunet_vit_trainer.config.reading import find_config, load_config
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.plans.architecture import resolved_options
from nnunet_vit_trainer.plans.derive import derived_plans_name, resolved_recipe
from vit_backbone import MODEL_CONFIGS, UserError, reason_of, resolve_backbone, shorten

from . import schema
from .facts import weights_of
from .releases import family_of, papers_of, release_of

_TRAINER, _PLANS, _CONFIGURATION = "nnUNetTrainerNoDeepSupervision_vit", "nnUNetPlans", "2d"


def card_of_config(file_or_name: str | Path) -> schema.ModelCard:
    """Make the card of a config, without building anything.

    Args:
        file_or_name: a YAML file, or the name of a shipped config.

    Raises:
        UserError: one that `nnUNetv2_train_vit` would refuse, or a weight file that cannot be read.
    """
    config = load_config(file_or_name)
    model = config.model
    timm_name = resolve_backbone(model.backbone, model.backbone_size)
    family = family_of(model.backbone, timm_name)
    weights, notes = _weights(config, family, timm_name)
    lora = {name: value for name, value in vars(config.lora).items() if name != "enabled"}
    return schema.ModelCard(
        kind="config",
        name=find_config(file_or_name).stem,
        trainer=_TRAINER,
        plans=derived_plans_name(_PLANS, find_config(file_or_name).stem),
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
            release_of(family, timm_name, {}) if weights else None,
            model.model_path,
            model.decoder.options(),
            lora if config.tune == "lora" else None,
        ),
        predict=[f"nnUNetv2_train_vit DATASET 2d 0 --config {shorten(file_or_name, 200)}"],
        notes=notes,
    )


def _weights(
    config: ViTnnUNetConfig, family: str | None, timm_name: str
) -> tuple[schema.Weights | None, list[str]]:
    """Say what the training would begin with, and what is missing for it."""
    path = config.model.checkpoint_path
    if not path and config.model.pretrained is False:
        return None, []
    if not path:
        weights = weights_of(family, timm_name, {}, None, None)
        needed = (
            config.model.backbone in MODEL_CONFIGS
            and not (MODEL_CONFIGS[config.model.backbone]["on_hub"])
        )
        missing = "these weights are on no hub: give your copy as model.checkpoint_path"
        return weights, [missing] if needed else []
    file = os.path.expanduser(path)
    sha256 = _sha256(file) if os.path.isfile(file) else None
    weights = weights_of(family, timm_name, {}, path, sha256)
    return weights, [] if sha256 else ["model.checkpoint_path is no file here"]


def _sha256(file: str) -> str:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - os.path above, whatever the path is
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{shorten(file, 200)} cannot be read: {reason_of(error)}") from error
