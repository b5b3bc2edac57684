"""Parts that any head may take: a shortcut past its decoder, and a look at the image's pixels.

Both begin at nothing, so that a head with them starts as the linear probe of its backbone and
learns what it can add: `Shortcut` is that probe, and what a head adds to it begins at zero
(`begin_at_zero`), as the last layer of the `ImageStem` does.

B: batch, C: embed_dim, h, w: patch grid, H, W: padded image, K: classes.
"""

from collections.abc import Sequence

import torch
from torch import nn

from vit_backbone.errors import UserError
from vit_backbone.segmentation.geometry import resized

from .recompute import kept, recomputed


def begin_at_zero(classifiers: nn.ModuleList) -> None:
    """Set weights and biases to zero, in place: the first step wakes them, and then what is below.

    Args:
        classifiers: the last convolutions of a decoder.
    """
    for parameter in classifiers.parameters():
        nn.init.zeros_(parameter)


def check_taps(features: Sequence[torch.Tensor], number: int, *, one_size: bool = False) -> None:
    """Refuse other taps than a head was built for.

    While something is traced or compiled, where sides are no numbers, they are counted alone.

    Args:
        features: the taps.
        number: that the head takes.
        one_size: whether all are to be of one height and width.

    Raises:
        UserError: fewer or more of them, of several batches, or of several sizes.
    """
    if len(features) != number:
        raise UserError(f"{len(features)} taps came, and the head takes {number}")
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if len({len(tap) for tap in features}) > 1:
        batches = [len(tap) for tap in features]
        raise UserError(f"taps of the batches {batches}: they are to be of the same images")
    sizes = [tuple(tap.shape[-2:]) for tap in features]
    if one_size and len(set(sizes)) > 1:
        raise UserError(
            f"taps of the sizes {sizes}: the head takes taps of one size; those that are a pyramid "
            "already need one that makes none (SegFormer: neck='none')"
        )


def check_image(image: torch.Tensor | None, beside: torch.Tensor) -> None:
    """Refuse to go on without the image, or with other ones, where a head looks at it.

    Args:
        image: what came for it.
        beside: a map of the same images.

    Raises:
        UserError: nothing came, or another batch.
    """
    if image is None:
        raise UserError("no image came, and the head looks at its pixels; give it behind the taps")
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if len(image) != len(beside):
        raise UserError(f"{len(image)} images came with taps of {len(beside)}")


def group_norm(channels: int) -> nn.GroupNorm:
    """Make a norm of the largest of 8, 4, 2, 1 groups that divides the channels.

    Of 1, 2, 4 or 8 channels each is a group, of which a map of 1x1 leaves nothing.
    """
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class Shortcut(nn.Module):
    """The linear classifier of the last tap, to be added to what a decoder answers.

    Args:
        embed_dim: channels C of the taps.
        num_classes: K.
    """

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        # nnU-Net's -pretrained_weights skips the keys with '.seg_layers.' and no others.
        self.seg_layers = nn.ModuleList([nn.Conv2d(embed_dim, num_classes, kernel_size=1)])

    def forward(
        self, features: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Add the logits of the last of the taps (B, C, h, w) to each of the decoder's outputs.

        Args:
            features: the taps, shallowest first.
            outputs: logits (B, K, any height, any width) over the area of the taps.
        """
        logits = self.seg_layers[0](features[-1])
        return [output + resized(logits, output.shape[-2:]) for output in outputs]


class ImageStem(nn.Module):
    """Correct a head's logits by a small convolutional path at the image's own resolution.

    A patch token says what is there and hardly where its edges run; the pixels do. The path sees
    the image at full and at half size. At half size it is joined with the head's last map, its
    guide, so that what an edge means depends on what the ViT sees there. Its classifier begins at
    zero. With ``recompute`` it keeps less for the backward pass.

    Args:
        image_channels: channels of the image.
        guide_channels: channels of the guide.
        num_classes: K.
        width: channels of the path at full size; half as many again at half size.
    """

    def __init__(
        self, image_channels: int, guide_channels: int, num_classes: int, width: int = 16
    ) -> None:
        super().__init__()
        self.recompute = False
        wide = width + width // 2
        self.fine = _conv_block(image_channels, width)
        self.coarse = nn.Conv2d(width, wide, kernel_size=3, padding=1)
        self.guide = nn.Conv2d(guide_channels, wide, kernel_size=1)
        self.join = nn.Sequential(*_norm_and_activation(wide), *_conv_block(wide, wide))
        self.widen = nn.Conv2d(wide, width, kernel_size=1)
        self.last = nn.Sequential(*_norm_and_activation(width), *_conv_block(width, width))
        self.seg_layers = nn.ModuleList([nn.Conv2d(width, num_classes, kernel_size=1)])
        begin_at_zero(self.seg_layers)

    def forward(
        self, image: torch.Tensor, guide: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits (B, K, any size) at the image's size, corrected.

        Args:
            image: (B, channels, H, W), padded and normalised.
            guide: (B, guide channels, any size) over the image's area.
            logits: likewise.

        Raises:
            UserError: no image, or another number of images.
        """
        check_image(image, guide)
        size = image.shape[-2:]
        half_size = [(side + 1) // 2 for side in size]
        run = recomputed if self.recompute else kept
        fine = run(self.fine, image)
        # 1x1 convolutions come before what resamples upwards: the same sum, at a fraction of it.
        coarse = self.coarse(resized(fine, half_size)) + resized(self.guide(guide), half_size)
        fine = fine + resized(self.widen(run(self.join, coarse)), size)
        return resized(logits, size) + self.seg_layers[0](run(self.last, fine))


def _conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(conv, *_norm_and_activation(out_channels))


def _norm_and_activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return group_norm(channels), nn.LeakyReLU(0.01, inplace=True)
