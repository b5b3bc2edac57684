"""The segmentation model that joins a backbone and a head.

B: batch, C: channels, H, W: image, K: classes, p: patch size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .backbone import create_backbone
from .features import get_vit_features
from .lora import disable_lora, enable_lora
from .weights import patch_embedding_is_adapted


class ViTSegmentationModel(nn.Module):
    """Pad to whole patches, take features, run the head, and give logits of the input's size.

    Output pixel (y, x) speaks of input pixel (y, x) for every patch size, image size and head:
    whatever size the head answers at, its logits cover the padded image, so they are resampled
    to the padded size before the padding is cropped off.

    Args:
        backbone: a timm ViT, or anything with its ``forward_intermediates``, ``blocks`` and
            ``patch_embed.patch_size``.
        head: ``head(features, image) -> logits``: four (B, C, H/p, W/p) maps and the padded image
            in, (B, K, h, w) over the same area out.
        indices: the blocks to tap; ``None`` is `layer_indices` of the backbone's depth.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, indices: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.indices = indices

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment images.

        Args:
            image: (B, C, H, W), any H, W >= 1.

        Returns:
            Logits (B, K, H, W).
        """
        height, width = image.shape[-2:]
        padded = pad_to_patches(image, self.backbone.patch_embed.patch_size)
        logits = self.head(get_vit_features(self.backbone, padded, self.indices), padded)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]

    def train(self, mode: bool = True) -> "ViTSegmentationModel":
        """Set the training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def freeze_backbone(self) -> None:
        """Freeze the backbone: no gradient and no train-mode randomness, from now on.

        A patch embedding that was adapted to other input channels goes on training.
        """
        self.backbone.requires_grad_(False)
        self.backbone.patch_embed.requires_grad_(patch_embedding_is_adapted(self.backbone))
        self.train(self.training)

    def enable_lora(
        self,
        rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.05,
        target_modules: Sequence[str] | None = None,
    ) -> None:
        """Tune the backbone by LoRA; see `vit_backbone.enable_lora`."""
        enable_lora(self.backbone, rank, lora_alpha, lora_dropout, target_modules)

    def disable_lora(self) -> None:
        """Merge LoRA into the backbone; see `vit_backbone.disable_lora`."""
        disable_lora(self.backbone)

    def print_trainable_parameters(self, detailed: bool = False) -> None:
        """Print how many parameters train, of how many; with ``detailed`` also each one's name."""
        if detailed:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    print(f"{name}: {tuple(parameter.shape)}")
        total = sum(parameter.numel() for parameter in self.parameters())
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")


def pad_to_patches(image: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """Pad at the bottom and right to whole patches: reflected, or replicated where it is too small.

    Args:
        image: (B, C, H, W), any H, W >= 1.
        patch_size: (height, width) of a patch.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % patch_size[0], -width % patch_size[1]
    if bottom:
        image = F.pad(image, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")
    if right:
        image = F.pad(image, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return image


def build_segmentation_model(
    make_model: Callable[[nn.Module], ViTSegmentationModel],
    *,
    backbone_name: str,
    backbone_size: str | None,
    checkpoint_path: str | Path | None,
    freeze_backbone: bool,
    use_lora: bool,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: Sequence[str] | None,
    pretrained: bool | None,
    in_channels: int,
) -> ViTSegmentationModel:
    """Build what every head's ``create_segmentation_model`` returns.

    Args:
        make_model: joins the backbone and the head.
        freeze_backbone: train the head alone; with ``use_lora`` the adapters train too, since
            LoRA freezes the backbone's own weights anyway.
        others: as in `create_backbone` and `enable_lora`.

    Raises:
        UserError: what `create_backbone` and `enable_lora` refuse.
    """
    backbone, _, _ = create_backbone(
        backbone_name, backbone_size, checkpoint_path, pretrained=pretrained, in_chans=in_channels
    )
    model = make_model(backbone)
    if use_lora:
        model.enable_lora(lora_rank, lora_alpha, lora_dropout, lora_target_modules)
    elif freeze_backbone:
        model.freeze_backbone()
    return model
