"""timm's attention, with its layers called as modules."""

from typing import Any

from torch import nn

from .plain import plain_vit


def call_qkv(backbone: nn.Module) -> None:
    """Let each block call its ``qkv``, in place; what it answers stays the same.

    timm's EVA attention (EVA, DINOv3's qkvb) calls ``F.linear`` with the weight of ``qkv``, which
    goes around an adapter there: LoRA would train nothing. With the bias apart it is called.

    Args:
        backbone: a timm ViT.
    """
    for block in plain_vit(backbone).blocks:
        attention: Any = getattr(block, "attn", None)  # parallel blocks have none
        if hasattr(attention, "qkv_bias_separate"):
            attention.qkv_bias_separate = True
