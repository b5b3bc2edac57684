"""The linear head: one 1x1 convolution on the last features, the yardstick of the DINO papers.

Registered as the head ``linear``. The factory is free of torch until it is called.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import ViTSegmentationModel


def create_segmentation_model(
    backbone_name: str = "dinov3",
    backbone_size: str | None = None,
    num_classes: int = 1,
    checkpoint_path: str | Path | None = None,
    freeze_backbone: bool = False,
    use_lora: bool = True,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    lora_target_modules: Sequence[str] | None = None,
    *,
    pretrained: bool | None = None,
    in_channels: int = 3,
    backbone_options: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> "ViTSegmentationModel":
    """Build a ViT with the linear head: (B, in_channels, H, W) in, logits of that size out.

    The arguments are every head's, see `vit_backbone.build_segmentation_model`; there are no
    options of its own, and unknown ones are warned about and ignored.

    Raises:
        UserError: an impossible backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from .linear_head import LinearHead
    from .model import ViTSegmentationModel, build_segmentation_model

    if unknown:
        warnings.warn(f"the linear head ignores unknown options {sorted(unknown)}", stacklevel=2)
    return build_segmentation_model(
        lambda backbone: ViTSegmentationModel(
            backbone, LinearHead(backbone.num_features, num_classes)
        ),
        backbone_name=backbone_name,
        backbone_size=backbone_size,
        checkpoint_path=checkpoint_path,
        freeze_backbone=freeze_backbone,
        use_lora=use_lora,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        pretrained=pretrained,
        in_channels=in_channels,
        backbone_options=backbone_options,
    )
