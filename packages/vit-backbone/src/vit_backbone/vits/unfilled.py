"""Build a module without computing first values that the weights of a file would replace.

For a ViT-L they cost seconds. Instead of them every parameter holds NaN until it is filled, so that
one that is forgotten cannot go unnoticed: `refuse_unfilled` finds it, and a loss would tell.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

Module = TypeVar("Module", bound=nn.Module)

_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """Let the next `create_backbone` build without first values, though it is given no file.

    Whoever says so fills the backbone at once, and asks `refuse_unfilled` afterwards. Another one,
    that a head may have, is built as ever.
    """
    before = _follow.set(True)
    try:
        yield
    finally:
        _follow.reset(before)


def is_filled_next() -> bool:
    """Say whether the backbone that is built now is the one of `weights_follow`."""
    said = _follow.get()
    _follow.set(False)
    return said


def build_unfilled(build: Callable[[], Module]) -> Module:
    """Build a module whose parameters hold NaN; buffers are computed as ever.

    While it is built the parameters are on the meta device, where first values cost nothing, and
    draw no random numbers. What computes with its parameters while it is built, as a hybrid's stem
    does, has first values as ever.

    Args:
        build: makes the module on torch's default device; it may be called twice. Where that
            device is meta, nothing is changed.

    Returns:
        The module, its parameters on the default device.
    """
    device = torch.empty(0).device  # torch 2.6's get_default_device overlooks contexts
    if device.type == "meta":
        return build()
    try:
        module = _build_on_meta(build)
    except (
        Exception
    ):  # whatever tensors of two devices make of it; if it is another, it comes again
        return build()
    if any(buffer.is_meta for buffer in module.buffers()):
        return build()
    _take_memory(module, device)
    return module


def _build_on_meta(build: Callable[[], Module]) -> Module:
    """Build a module with its parameters on the meta device, and its buffers where they belong."""
    thread = threading.get_ident()

    def without_values(_: nn.Module, __: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if parameter.is_meta or threading.get_ident() != thread:  # the hook is of all modules
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    # A hook may return another parameter, which torch's annotation leaves out.
    hook = register_module_parameter_registration_hook(without_values)  # ty: ignore[invalid-argument-type]
    try:
        return build()
    finally:
        hook.remove()


def _take_memory(module: nn.Module, device: torch.device) -> None:
    """Replace the parameters on meta, each once, however many modules share it."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            if not parameter.is_meta:
                continue
            if parameter not in made:
                values = torch.full_like(parameter, math.nan, device=device, requires_grad=False)
                made[parameter] = nn.Parameter(values, parameter.requires_grad)
            part.register_parameter(name, made[parameter])


def refuse_unfilled(module: nn.Module) -> None:
    """Refuse to go on with a parameter that `build_unfilled` left and nobody filled.

    Args:
        module: filled as a whole; only the first value of each parameter is looked at.

    Raises:
        RuntimeError: naming the first such parameter.
    """
    for name, parameter in module.named_parameters():
        if parameter.numel() and parameter.detach()[(0,) * parameter.ndim].isnan():
            raise RuntimeError(f"{name} was built without values, and no weights have filled it")
