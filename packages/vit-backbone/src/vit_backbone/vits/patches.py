"""timm's patch embedding, with the size of the image kept a variable."""

import torch
from timm.layers import Format, PatchEmbed
from torch import nn

from .features import refuse_broken_patches


class TraceablePatchEmbed(PatchEmbed):
    """timm's patch embedding of dynamic sizes, bit for bit, for any size when compiled too.

    timm writes the size into the message of a check, which torch.compile takes for a use of its
    value: it would compile anew for every size. Here the message is written where it is raised.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (B, channels, H, W) into (B, H/p, W/p, C).

        Raises:
            ValueError: H or W is no multiple of the patch size.
        """
        refuse_broken_patches(x, self.patch_size)
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


def make_patches_traceable(backbone: nn.Module) -> None:
    """Give a backbone with timm's own patch embedding the traceable form, in place."""
    embed = backbone.patch_embed
    if type(embed) is PatchEmbed and embed.output_fmt == Format.NHWC:
        embed.__class__ = TraceablePatchEmbed
