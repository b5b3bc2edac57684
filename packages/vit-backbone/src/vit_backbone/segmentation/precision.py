"""The precision that a network runs in where nnU-Net asks for float16."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec

import torch

from vit_backbone.errors import UserError

Asked = ParamSpec("Asked")

FLOAT16_AS = ("bfloat16", "float32", "float16")


def check_float16_as(float16_as: str) -> str:
    """Return the name of a precision for `instead_of_float16`.

    Raises:
        UserError: not one of `FLOAT16_AS`.
    """
    if float16_as not in FLOAT16_AS:
        raise UserError(f"float16_as {float16_as!r}: there is {', '.join(FLOAT16_AS)}")
    return float16_as


def instead_of_float16(device_type: str, float16_as: str) -> AbstractContextManager[Any]:
    """Run in another precision where float16 autocast is on.

    nnU-Net validates and predicts under float16, in which DINOv3 is reported unstable. The network
    is the one place that training and stock prediction share.

    Args:
        device_type: of the image.
        float16_as: ``bfloat16`` (where the device has it), ``float32``, or ``float16`` itself.
    """
    if float16_as == "float16" or not has_autocast(device_type):
        return nullcontext()
    asked = torch.is_autocast_enabled(device_type)
    if not asked or torch.get_autocast_dtype(device_type) != torch.float16:
        return nullcontext()
    if float16_as == "float32":
        return torch.autocast(device_type, enabled=False)
    if device_type == "cuda" and not cuda_has_bfloat16():
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16)


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Compute as tensors are kept, autocast or not; meta, which is asked for costs, has none.

    Args:
        device_type: of the tensors.
    """
    if not has_autocast(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _assume_constant(ask: Callable[Asked, bool]) -> Callable[Asked, bool]:
    """Let dynamo take an answer of torch's for a constant, instead of breaking the graph.

    It cannot trace them (the first one's until torch 2.6 at least).
    """
    return torch.compiler.assume_constant_result(ask)


@_assume_constant
def has_autocast(device_type: str) -> bool:
    """Say whether a kind of device has autocast; meta has none."""
    return torch.amp.is_autocast_available(device_type)


@_assume_constant
def cuda_has_bfloat16() -> bool:
    """Say whether the CUDA device computes in bfloat16 itself, rather than emulating it."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
