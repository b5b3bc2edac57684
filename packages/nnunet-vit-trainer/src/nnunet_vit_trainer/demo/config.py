"""The demo's config: a tiny ViT from scratch, or LoRA on a user's weights."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from vit_backbone import UserError


def config_of(weights: Path | None = None) -> str:
    """Return the config that the demo trains, as YAML.

    Args:
        weights: of a pretrained ViT, which LoRA then tunes; ``None``: a tiny ViT from scratch.

    Raises:
        UserError: a file that is missing or unreadable, or of which nobody knows what it is for.
    """
    own = resources.files("nnunet_vit_trainer.demo")
    if weights is None:
        return (own / "demo.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load((own / "lora.yaml").read_text(encoding="utf-8"))
    config["model"] |= _backbone_of(weights) | {"checkpoint_path": str(weights.resolve())}
    return yaml.safe_dump(config, sort_keys=False)


def _backbone_of(weights: Path) -> dict[str, Any]:
    from vit_backbone import read_checkpoint
    from vit_backbone.vits.families import likely_backbone

    if not weights.exists():
        raise UserError(f"--weights {weights}: there is no such file")
    checkpoint = read_checkpoint(weights)
    found = likely_backbone(checkpoint)
    if found is None:
        raise UserError(
            f"--weights {weights} holds {checkpoint.describe()}, which is no backbone that the "
            "demo knows; train with a config that names model.backbone and model.checkpoint_path"
        )
    name, size = found
    return {"backbone": name, "backbone_size": size}
