"""Where pixels lie: padding to whole patches, and logits brought back to the image.

B: batch, C: channels, H, W: image, K: classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resample (B, C, h, w) bilinearly over the same area; as it is where the size is right."""
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


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
        return resized(logits, padded_size)[..., : size[0], : size[1]]
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
