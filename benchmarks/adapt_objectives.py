"""Objectives that adapt a backbone to images without labels, for adapt.py.

The losses are lightly's, where it has one. B: images, H, W: pixels, h, w: patches, N = h * w,
D: width of a token.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from lightly.loss import DINOLoss, IBOTPatchLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.utils import random_block_mask, update_momentum
from torch import nn
from torchvision.transforms.v2 import RandomResizedCrop

from vit_backbone import PlainViT

VIEW = 154  # pixels, 11 patches of 14: two of them cost what a whole slice does
_PROTOTYPES = 1024
_CHANGE = BGContrast((0.6, 1.6))
_KEEP = {"synchronize_channels": False, "p_per_channel": 1.0}
_INTENSITY = ComposeTransforms(
    [
        RandomTransform(GaussianNoiseTransform(noise_variance=(0, 0.1), **_KEEP), 0.5),
        RandomTransform(
            GaussianBlurTransform(blur_sigma=(0.5, 1.5), synchronize_axes=True, **_KEEP), 0.3
        ),
        RandomTransform(MultiplicativeBrightnessTransform(multiplier_range=_CHANGE, **_KEEP), 0.5),
        RandomTransform(
            ContrastTransform(contrast_range=_CHANGE, preserve_range=True, **_KEEP), 0.5
        ),
        RandomTransform(
            GammaTransform(gamma=_CHANGE, p_invert_image=0, p_retain_stats=1, **_KEEP), 0.5
        ),
    ]
)
"""nnU-Net's changes of intensity, stronger and more frequent than in its trainings."""


class Seen(NamedTuple):
    """What an encoder makes of images.

    Attributes:
        taps: of each tapped block the patch tokens, (B, N, D).
        cls: the last one's CLS token, (B, D).
    """

    taps: list[torch.Tensor]
    cls: torch.Tensor


class Encoder(nn.Module):
    """A ViT whose patches can be hidden.

    Args:
        vit: with whatever of it trains.
        blocks: to tap.
    """

    def __init__(self, vit: PlainViT, blocks: Sequence[int]) -> None:
        super().__init__()
        self.vit = vit
        self.blocks = list(blocks)
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))
        self._mask: torch.Tensor | None = None
        vit.patch_embed.register_forward_hook(self._hide)

    def forward(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> Seen:
        """Encode images of whole patches; where mask (B, h, w) is true, the patch is hidden."""
        self._mask = mask
        with torch.autocast("cpu", torch.bfloat16):
            found = self.vit.forward_intermediates(
                images,
                indices=self.blocks,
                norm=True,
                return_prefix_tokens=True,
                output_fmt="NLC",
                intermediates_only=True,
            )
        self._mask = None
        return Seen([patches.float() for patches, _ in found], found[-1][1][:, 0].float())

    def _hide(self, module: nn.Module, images: tuple, tokens: torch.Tensor) -> torch.Tensor:
        if self._mask is None:
            return tokens
        return torch.where(self._mask[..., None], self.mask_token.to(tokens.dtype), tokens)


class Masked(nn.Module):
    """Predict the tokens of hidden patches, those of all taps (data2vec's loss)."""

    def forward(self, student: Encoder, teacher: Encoder, images: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch (B, C, H, W)."""
        mask = mask_of(student, images)
        hidden = mask.flatten(1)
        pairs = zip(student(images, mask).taps, teacher(images).taps, strict=True)
        return torch.stack(
            [F.smooth_l1_loss(normed(found[hidden]), normed(true[hidden])) for found, true in pairs]
        ).mean()


class Consistent(nn.Module):
    """Keep the tokens of all taps under changes of intensity (cosine)."""

    def forward(self, student: Encoder, teacher: Encoder, images: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch (B, C, H, W)."""
        pairs = zip(student(changed(images)).taps, teacher(images).taps, strict=True)
        return torch.stack(
            [1 - F.cosine_similarity(found, true, dim=-1).mean() for found, true in pairs]
        ).mean()


class SelfDistilled(nn.Module):
    """DINO's and iBOT's losses of two views, as DINOv2 has them; the heads begin at random.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        heads = [DINOProjectionHead(dim, 512, 128, _PROTOTYPES) for _ in range(2)]
        self.heads = nn.ModuleList(heads)
        self.teachers = nn.ModuleList(
            [DINOProjectionHead(dim, 512, 128, _PROTOTYPES) for _ in range(2)]
        ).requires_grad_(False)
        self.teachers.load_state_dict(self.heads.state_dict())
        self.of_images = DINOLoss(_PROTOTYPES, warmup_teacher_temp_epochs=0)
        self.of_patches = IBOTPatchLoss(_PROTOTYPES)
        self.crop = RandomResizedCrop((VIEW, VIEW), scale=(0.4, 1.0))

    def forward(self, student: Encoder, teacher: Encoder, images: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch (B, C, H, W)."""
        update_momentum(self.heads, self.teachers, 0.99)
        views = [changed(torch.stack([self.crop(i) for i in images])) for _ in range(2)]
        masks = [mask_of(student, view) for view in views]
        found = [student(view, mask) for view, mask in zip(views, masks, strict=True)]
        with torch.no_grad():
            true = [teacher(view) for view in views]
            true_cls = [self.teachers[0](of.cls) for of in true]
            hidden = [of.taps[-1][m.flatten(1)] for of, m in zip(true, masks, strict=True)]
            true_patches = self.teachers[1](torch.cat(hidden))
        hidden = [of.taps[-1][m.flatten(1)] for of, m in zip(found, masks, strict=True)]
        patches = self.of_patches(true_patches, self.heads[1](torch.cat(hidden)), torch.cat(masks))
        return patches + self.of_images(true_cls, [self.heads[0](of.cls) for of in found])


OBJECTIVES: dict[str, Callable[[int], nn.Module]] = {
    "masked": lambda dim: Masked(),
    "consistent": lambda dim: Consistent(),
    "dino": SelfDistilled,
}
"""Name -> an objective for tokens of a width."""


def mask_of(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Draw blocks of patches to hide, 10 to 60 % of each image, (B, h, w)."""
    side = encoder.vit.patch_embed.patch_size[0]
    height, width = (pixels // side for pixels in images.shape[-2:])
    return random_block_mask(
        (len(images), height, width), batch_mask_ratio=1.0, max_image_mask_ratio=0.6
    )


def changed(images: torch.Tensor) -> torch.Tensor:
    """Change each image's intensities."""
    return torch.stack([_INTENSITY(image=image.clone())["image"] for image in images])


def normed(tokens: torch.Tensor) -> torch.Tensor:
    """Bring each token to mean 0 and variance 1, so that no channel outweighs the others."""
    return F.layer_norm(tokens, tokens.shape[-1:])
