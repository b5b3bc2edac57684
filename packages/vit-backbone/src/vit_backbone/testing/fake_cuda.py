"""A CUDA run where there is no CUDA device: torch's fake tensors know shape, type and device."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


def run_on_fake_cuda(
    model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype = torch.float16
) -> torch.Tensor | list[torch.Tensor]:
    """Run a forward pass under autocast, its parameters, buffers and image on a CUDA device.

    A tensor that the forward pass makes on the CPU fails here, and not at the user's. Nothing is
    computed, so a large model on the meta device costs next to nothing. The test is skipped where
    torch, before 2.11, would ask a CUDA driver that is not there.

    Args:
        model: on any device; it is not changed.
        shape: of the image.
        dtype: of autocast.

    Returns:
        What the model returns: fake tensors, with ``device``, ``dtype`` and ``shape``.

    Raises:
        RuntimeError: tensors of two devices met.
        AssertionError: a tensor that is neither parameter nor buffer was used.
    """
    if torch.__version__ < "2.11.dev0" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} has no fake convolutions without a CUDA driver")
    with ExitStack() as stack:
        # Without a CUDA device torch would switch this autocast off, with a warning.
        stack.enter_context(
            patch("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", _no)
        )
        stack.enter_context(patch("torch.cuda.is_bf16_supported", _yes))
        stack.enter_context(FakeTensorMode())
        stack.enter_context(torch.autocast("cuda", dtype))
        state = {
            name: torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda"
            )
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        }
        image = torch.empty(shape, device="cuda")
        return torch.func.functional_call(model, state, (image,))


def _no() -> bool:
    return False


def _yes(*_: object, **__: object) -> bool:
    return True
