"""Whether a patch embedding trains where the rest of the backbone does not. No torch.

Measured (docs/recipe.md): an adapted patch embedding that trains gains a few hundredths of Dice.
Under LoRA that costs nothing, since gradients run through the whole backbone anyway. Under a
frozen backbone it would cost what frozen promises: every block would be back-propagated.
"""

from typing import Any


def patch_embedding_trains(in_chans: int, trained_chans: int = 3, *, frozen: bool = False) -> bool:
    """Decide whether a patch embedding goes on training: if it was adapted, and not if frozen.

    Args:
        in_chans: of the image, at least 1.
        trained_chans: of the weight file; one with the image's channels is not adapted.
        frozen: whether nothing below the trained blocks is to train; otherwise LoRA is meant.
    """
    return not frozen and in_chans != trained_chans


def set_patch_embedding(backbone: Any, *, frozen: bool) -> None:
    """Let a frozen backbone's patch embedding train or not, in place.

    Args:
        backbone: its ``train_patch_embedding`` decides where plans name it (True or False), else
            `patch_embedding_trains`, with its ``trained_chans``; without them it was not adapted.
        frozen: see there.
    """
    backbone.patch_embed.requires_grad_(trains_by_rule(backbone, frozen=frozen))


def trains_by_rule(backbone: Any, *, frozen: bool) -> bool:
    """Say whether `set_patch_embedding` lets a backbone's patch embedding train.

    Args:
        backbone: see there.
        frozen: see there.
    """
    trains = getattr(backbone, "train_patch_embedding", None)
    trained_chans = getattr(backbone, "trained_chans", None)
    if trains is None and trained_chans is not None:
        in_chans = backbone.patch_embed.proj.in_channels
        trains = patch_embedding_trains(in_chans, trained_chans, frozen=frozen)
    return bool(trains)
