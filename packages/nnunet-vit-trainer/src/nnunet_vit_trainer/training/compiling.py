"""Whether a run is compiled: where nnU-Net does it, and where it works and pays."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

import torch
from torch._dynamo.exc import TorchDynamoException

from vit_backbone import UserError, reason_of

SWITCH = "nnUNet_compile"
"""nnU-Net's environment variable; without it, CUDA is compiled and a CPU is not."""

FEWEST_BATCHES = 5000
"""Compiling takes 100 s, and saves 15 to 25 ms of a small ViT's batch: shorter runs do not earn it
back (docs/compile.md)."""

_OLDEST_GPU = (7, 0)  # compute capability; Triton compiles for no older one


def is_asked_for() -> bool:
    """Say whether nnU-Net's variable asks for it, as nnU-Net reads it."""
    return os.environ.get(SWITCH, "").lower() in ("true", "1", "t")


def reason_against(device: torch.device, batches: int) -> str | None:
    """Say why a run is not compiled though nnU-Net would; ``None`` leaves it to nnU-Net.

    Args:
        device: of the run.
        batches: that the whole run trains on; that they are few counts for nothing where compiling
            is asked for.
    """
    asked = is_asked_for()
    by_nnunet = device.type == "cuda" and SWITCH not in os.environ
    if not (by_nnunet or (asked and device.type in ("cuda", "cpu"))):
        return None
    if batches < FEWEST_BATCHES and not asked:
        return f"{batches} batches are too few to earn it back ({SWITCH}=t compiles all the same)"
    if device.type == "cpu":
        return _without_cpp_compiler()
    return _without_triton(device)


def _without_cpp_compiler() -> str | None:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler):
        return None
    return f"there is no C++ compiler {compiler}; install it, or name another one in CXX"


def _without_triton(device: torch.device) -> str | None:
    if torch.cuda.get_device_capability(device) < _OLDEST_GPU:
        return f"Triton compiles for no GPU as old as {torch.cuda.get_device_name(device)}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang")):
        return "there is no C compiler, which Triton needs; install gcc, or name one in CC"
    return None


@contextlib.contextmanager
def compiler_in_one_line() -> Iterator[None]:
    """Say of what torch.compile fails at how to train without it.

    Raises:
        UserError: it failed.
    """
    try:
        yield
    except TorchDynamoException as error:
        raise UserError(
            f"torch.compile failed: {reason_of(error)}; {SWITCH}=f trains without it"
        ) from error
