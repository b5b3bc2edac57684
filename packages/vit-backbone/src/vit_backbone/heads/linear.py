"""The linear head: one 1x1 convolution on the last features, the yardstick of the DINO papers.

Registered as the head ``linear``. The factory is free of torch until it is called.
"""

from typing import TYPE_CHECKING

from .factory import head_factory

if TYPE_CHECKING:
    from vit_backbone.vits.plain import PlainViT

    from .linear_head import LinearHead


@head_factory
def create_segmentation_model(
    backbone: "PlainViT", num_classes: int, *, image_stem: bool = False
) -> "LinearHead":
    """Build a ViT with the linear head: (B, in_channels, H, W) in, logits of that size out.

    The arguments of every head are `vit_backbone.heads.factory.standard_factory`'s; unknown options
    are warned about and ignored.

    Args:
        backbone: what they build.
        num_classes: number of output channels, at least 1.
        image_stem: correct the logits by a small convolutional path at the image's resolution.

    Raises:
        UserError: an impossible backbone, size or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from .linear_head import LinearHead

    return LinearHead(
        backbone.num_features,
        num_classes,
        image_stem=image_stem,
        image_channels=backbone.patch_embed.proj.in_channels,
    )
