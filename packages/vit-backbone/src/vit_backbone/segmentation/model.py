"""The segmentation model that joins a backbone and a head.

B: batch, C: channels, H, W: image, K: classes, p: patch size.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import cast

import torch
from torch import nn

from vit_backbone.errors import UserError, quoted
from vit_backbone.tuning.patch_embedding import set_patch_embedding
from vit_backbone.vits.features import get_vit_features, refuse_no_images, refuse_unnormed
from vit_backbone.vits.plain import PlainViT, plain_vit
from vit_backbone.vits.taps import resolve_taps

from .geometry import fit_to_image, pad_to_patches
from .input_norm import InputNorm
from .precision import check_float16_as, instead_of_float16


class Head(nn.Module):
    """What is asked of a head with deep supervision; for type checkers, none inherits it.

    Attributes:
        deep_supervision: whether the auxiliary outputs are returned too.
        deep_supervision_scales: the outputs' heights and widths by the image's, finest first.
    """

    deep_supervision: bool
    deep_supervision_scales: Sequence[float]


class ViTSegmentationModel(nn.Module):
    """Pad to whole patches, take features, run the head, and give logits of the input's size.

    Output pixel (y, x) speaks of input pixel (y, x) for every patch size, image size and head:
    whatever size the head answers at, its logits cover the padded image, so they are resampled
    to the padded size before the padding is cropped off.

    Args:
        backbone: a timm ViT, or anything with its ``forward_intermediates``, ``blocks`` and
            ``patch_embed.patch_size``.
        head: ``head(features, image) -> logits``: four (B, C, H/p, W/p) maps and the padded image
            in, (B, K, h, w) over the same area out. A head with auxiliary outputs has
            ``deep_supervision``, which switches them on, and ``deep_supervision_scales``; it
            returns a list of logits then, finest first.
        indices: the blocks to tap; ``None`` is `layer_indices` of the backbone's depth. Blocks
            behind the last one train without a gradient, which DDP does not take: whoever gives
            others, here or later, calls `freeze_behind_last_tap`.
        input_norm: applied to the image first; ``None`` takes it as it is.
        float16_as: the precision under float16 autocast; see `instead_of_float16`.

    Raises:
        UserError: a timm ViT that norms after pooling alone, or another precision.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        indices: Sequence[int] | None = None,
        input_norm: InputNorm | None = None,
        float16_as: str = "bfloat16",
    ) -> None:
        super().__init__()
        refuse_unnormed(backbone)
        self.backbone: PlainViT = plain_vit(backbone)
        self.head: Head = cast("Head", head)  # of any class
        self.indices = indices
        self.input_norm = input_norm
        self.float16_as = check_float16_as(float16_as)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Segment images.

        Args:
            image: (B, C, H, W), any H, W >= 1.

        Returns:
            Logits (B, K, H, W) of the image's dtype (of whole numbers: torch's default), under
            autocast too. With deep supervision on,
            a list, the i-th at the head's i-th scale of H and W, rounded as nnU-Net rounds its
            targets.

        Raises:
            UserError: no batch of images, other channels, or whole numbers where no ``input_norm``
                takes them.
        """
        refuse_no_images(image, self.backbone)
        if self.input_norm is None and not image.is_floating_point():
            raise UserError(f"an image of {image.dtype} came; normalise it, to floating point")
        height, width = image.shape[-2:]
        if self.input_norm is not None:
            image = self.input_norm(image)
        padded = pad_to_patches(image, self.backbone.patch_embed.patch_size)
        with instead_of_float16(image.device.type, self.float16_as):
            features = get_vit_features(self.backbone, padded, self.indices)
            logits = self.head(*self._laid_out(features, padded))
        if not isinstance(logits, list):
            return fit_to_image(logits.to(image.dtype), padded.shape[-2:], (height, width))
        scales = self.head.deep_supervision_scales
        return [
            fit_to_image(output.to(image.dtype), padded.shape[-2:], (height, width), scale)
            for output, scale in zip(logits, scales, strict=True)
        ]

    @staticmethod
    def _laid_out(
        features: list[torch.Tensor], image: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Lay out in memory what a head gets; convolutions keep the layout of their input.

        Channels last are up to a seventh faster on a CPU (benchmarks/cost_cuts.py). On CUDA group
        norms would copy them back; in training DDP wants gradients laid out as the weights are.
        """
        if image.device.type != "cpu" or torch.is_grad_enabled():
            return features, image
        layout = {"memory_format": torch.channels_last}
        return [tap.contiguous(**layout) for tap in features], image.contiguous(**layout)

    def train(self, mode: bool = True) -> "ViTSegmentationModel":
        """Set the training mode; the backbone, and each of its blocks, stays frozen if it is."""
        super().train(mode)
        for part in (self.backbone, *self.backbone.blocks):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def freeze_backbone(self, except_last_blocks: int = 0) -> None:
        """Freeze the backbone: no gradient and no train-mode randomness, from now on.

        Nor does an adapted patch embedding train, unless plans of 0.1.0 mean that it does.

        Args:
            except_last_blocks: so many of the last blocks, and the final norm, go on training.

        Raises:
            UserError: no number, more blocks than there are, or none of them is run for a tap.
        """
        blocks = self.backbone.blocks
        if not isinstance(except_last_blocks, Integral) or isinstance(except_last_blocks, bool):
            raise UserError(f"blocks {quoted(except_last_blocks)}: a whole number is expected")
        if not 0 <= except_last_blocks <= len(blocks):
            raise UserError(
                f"the last {except_last_blocks} blocks cannot train; there are {len(blocks)}"
            )
        self.backbone.requires_grad_(False)
        if except_last_blocks:
            blocks[-except_last_blocks:].requires_grad_(True)
            self.backbone.norm.requires_grad_(True)
        set_patch_embedding(self.backbone, frozen=True)
        if except_last_blocks:
            self.freeze_behind_last_tap()
        self.train(self.training)

    def freeze_behind_last_tap(self) -> None:
        """Freeze the blocks that no tap needs: they never run, and DDP would wait for them.

        Raises:
            UserError: last blocks were to train, and none of them is run.
        """
        blocks = self.backbone.blocks
        last = max(i % len(blocks) for i in resolve_taps(self.indices, len(blocks)))
        trained = [i for i, b in enumerate(blocks) if any(p.requires_grad for p in b.parameters())]
        if trained and trained[0] > last:
            raise UserError(
                f"blocks {trained} are to train, but the last tap is block {last}: "
                "nothing behind it is run"
            )
        blocks[last + 1 :].requires_grad_(False)

    def enable_lora(
        self,
        rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.05,
        target_modules: Sequence[str] | None = None,
        **variants: bool,
    ) -> None:
        """Tune the backbone by LoRA; see `vit_backbone.enable_lora`."""
        from vit_backbone.tuning.lora import enable_lora  # peft is an extra, and slow to import

        enable_lora(self.backbone, rank, lora_alpha, lora_dropout, target_modules, **variants)
        self.freeze_behind_last_tap()
        self.train(self.training)

    def disable_lora(self) -> None:
        """Merge LoRA into the backbone, which stays frozen; see `vit_backbone.disable_lora`."""
        from vit_backbone.tuning.lora import disable_lora

        disable_lora(self.backbone)
        self.train(self.training)

    def print_trainable_parameters(self, detailed: bool = False) -> None:
        """Print how many parameters train, of how many; with ``detailed`` also each one's name."""
        if detailed:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    print(f"{name}: {tuple(parameter.shape)}")
        total = sum(parameter.numel() for parameter in self.parameters())
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")
