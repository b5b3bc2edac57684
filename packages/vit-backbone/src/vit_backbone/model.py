"""The segmentation model that joins a backbone and a head.

B: batch, C: channels, H, W: image, K: classes, p: patch size.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .backbone import create_backbone
from .errors import UserError
from .features import get_vit_features
from .input_norm import InputNorm
from .lora_options import check_lora_options
from .patch_embedding import set_patch_embedding
from .precision import check_float16_as, instead_of_float16
from .taps import resolve_taps


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
        indices: the blocks to tap; ``None`` is `layer_indices` of the backbone's depth.
        input_norm: applied to the image first; ``None`` takes it as it is.
        float16_as: the precision under float16 autocast; see `instead_of_float16`.
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
        self.backbone = backbone
        self.head = head
        self.indices = indices
        self.input_norm = input_norm
        self.float16_as = check_float16_as(float16_as)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Segment images.

        Args:
            image: (B, C, H, W), any H, W >= 1.

        Returns:
            Logits (B, K, H, W) of the image's dtype, under autocast too. With deep supervision on,
            a list, the i-th at the head's i-th scale of H and W, rounded as nnU-Net rounds its
            targets.
        """
        height, width = image.shape[-2:]
        if self.input_norm is not None:
            image = self.input_norm(image)
        padded = pad_to_patches(image, self.backbone.patch_embed.patch_size)
        with instead_of_float16(image.device.type, self.float16_as):
            logits = self.head(get_vit_features(self.backbone, padded, self.indices), padded)
        if not isinstance(logits, list):
            return fit_to_image(logits.to(image.dtype), padded.shape[-2:], (height, width))
        scales = self.head.deep_supervision_scales
        return [
            fit_to_image(output.to(image.dtype), padded.shape[-2:], (height, width), scale)
            for output, scale in zip(logits, scales, strict=True)
        ]

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
            UserError: more blocks than there are.
        """
        blocks = self.backbone.blocks
        if not 0 <= except_last_blocks <= len(blocks):
            raise UserError(
                f"the last {except_last_blocks} blocks cannot train; there are {len(blocks)}"
            )
        self.backbone.requires_grad_(False)
        if except_last_blocks:
            blocks[-except_last_blocks:].requires_grad_(True)
            self.backbone.norm.requires_grad_(True)
        set_patch_embedding(self.backbone, frozen=True)
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
        from .lora import enable_lora  # peft is an extra, and slow to import

        enable_lora(self.backbone, rank, lora_alpha, lora_dropout, target_modules, **variants)
        self.freeze_behind_last_tap()

    def disable_lora(self) -> None:
        """Merge LoRA into the backbone; see `vit_backbone.disable_lora`."""
        from .lora import disable_lora

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


def fit_to_image(
    logits: torch.Tensor,
    padded_size: Sequence[int],
    size: Sequence[int],
    scale: float = 1.0,
) -> torch.Tensor:
    """Resample logits that cover the padded image to its size, and crop the padding off.

    Args:
        logits: (B, K, h, w) over the area of the padded image.
        padded_size: height and width of that.
        size: height and width of the image.
        scale: of the result, for an auxiliary output: height and width are ``size * scale``,
            rounded. It is resampled once, and not at all where it has the right scale already.
    """
    if scale == 1.0:
        if logits.shape[-2:] != tuple(padded_size):
            logits = F.interpolate(logits, tuple(padded_size), mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]
    wanted = [max(1, round(side * scale)) for side in size]
    # Pixels of the result per logit. Not F.interpolate, which takes sizes or factors: the factors
    # say where a pixel lies though the result ends at the crop, in the middle of the logits.
    factors = [
        new * padded / (side * old)
        for new, padded, side, old in zip(wanted, padded_size, size, logits.shape[-2:], strict=True)
    ]
    if factors != [1.0, 1.0]:
        # torch copies an axis of equal sizes whatever the factor says: one more, cropped again.
        sizes = zip(wanted, logits.shape[-2:], factors, strict=True)
        asked = [new + (new == old and factor != 1.0) for new, old, factor in sizes]
        logits = torch.ops.aten.upsample_bilinear2d(logits, asked, False, *factors)
    return logits[..., : wanted[0], : wanted[1]]


def pad_to_patches(image: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """Pad at the bottom and right to whole patches: reflected, or replicated where it is too small.

    Args:
        image: (B, C, H, W), any H, W >= 1.
        patch_size: (height, width) of a patch.
    """
    height, width = image.shape[-2:]
    # Not -height % patch: torch 2.15's AOTAutograd has no name for a modulus of what is negative.
    bottom = (patch_size[0] - height % patch_size[0]) % patch_size[0]
    right = (patch_size[1] - width % patch_size[1]) % patch_size[1]
    if bottom:
        image = F.pad(image, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")
    if right:
        image = F.pad(image, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return image


_BACKBONE_OPTIONS = {
    name
    for name, parameter in inspect.signature(create_backbone).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} - {"pretrained", "in_chans"}


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
    backbone_options: Mapping[str, Any] | None = None,
) -> ViTSegmentationModel:
    """Build what every head's ``create_segmentation_model`` returns.

    Args:
        make_model: joins the backbone and the head.
        backbone_name: see `create_backbone`, as for the next four.
        backbone_size: see there.
        checkpoint_path: see there.
        pretrained: see there.
        in_channels: see there.
        freeze_backbone: train the head alone; it wins over ``use_lora``.
        use_lora: tune by LoRA, with the next four as in `enable_lora`.
        lora_rank: see there.
        lora_alpha: see there.
        lora_dropout: see there.
        lora_target_modules: see there.
        backbone_options: the last options of `create_backbone`, and ``indices`` (four taps, see
            `resolve_taps`), ``input_norm`` (arguments of `InputNorm`), ``train_last_blocks`` (of
            a frozen backbone), ``float16_as`` (see `instead_of_float16`), ``use_dora`` and
            ``use_rslora`` (see `enable_lora`).

    Raises:
        UserError: what `create_backbone` and `enable_lora` refuse, or an unknown or impossible
            option.
    """
    options = dict(backbone_options or {})
    taps = options.pop("indices", None)
    input_norm = options.pop("input_norm", None)
    train_last_blocks = options.pop("train_last_blocks", 0)
    float16_as = options.pop("float16_as", "bfloat16")
    variants = {name: options.pop(name, False) for name in ("use_dora", "use_rslora")}
    if unknown := sorted(set(options) - _BACKBONE_OPTIONS):
        raise UserError(f"unknown backbone_options {unknown}")
    if train_last_blocks and not freeze_backbone:
        raise UserError(
            f"train_last_blocks {train_last_blocks} is of a frozen backbone; set freeze_backbone"
        )
    if use_lora and not freeze_backbone:
        check_lora_options(lora_rank, lora_alpha, lora_dropout, lora_target_modules)
    check_float16_as(float16_as)
    norm = _input_norm(input_norm, in_channels) if input_norm else None
    backbone, _, _ = create_backbone(
        backbone_name,
        backbone_size,
        checkpoint_path,
        pretrained=pretrained,
        in_chans=in_channels,
        **options,
    )
    taps = resolve_taps(taps, len(backbone.blocks))
    if len(taps) != 4:
        raise UserError(f"indices {taps}: a head taps four blocks")
    model = make_model(backbone)
    model.indices = taps
    model.input_norm = norm
    model.float16_as = float16_as
    if freeze_backbone:
        model.freeze_backbone(train_last_blocks)
    elif use_lora:
        model.enable_lora(lora_rank, lora_alpha, lora_dropout, lora_target_modules, **variants)
    model.freeze_behind_last_tap()
    return model


def _input_norm(arguments: Mapping[str, Any], channels: int) -> InputNorm:
    if unknown := sorted(set(arguments) - {"mean", "std", "clamp"}):
        raise UserError(f"input_norm has mean, std and clamp, not {unknown}")
    if missing := sorted({"mean", "std"} - set(arguments)):
        raise UserError(f"input_norm lacks {missing}")
    return InputNorm(**arguments, channels=channels)
