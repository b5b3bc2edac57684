"""Keep less of a head for the backward pass: the results of its convolutions alone.

Norms, activations, concatenations and resampling are cheap to compute and large to keep. Blocks
that run by `recomputed` keep what their convolutions answered, and compute the rest anew. The
gradients are the same, of a single backward pass: torch refuses a second, and second derivatives.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from vit_backbone.errors import UserError

Run = Callable[..., torch.Tensor]
"""``run(block, *inputs)``: one of the next two."""


def kept(block: Run, *inputs: torch.Tensor) -> torch.Tensor:
    """Run a block as it is."""
    return block(*inputs)


def recomputed(block: Run, *inputs: torch.Tensor) -> torch.Tensor:
    """Run a block; for the backward pass keep its inputs and its convolutions' results.

    Args:
        block: of tensors, a tensor, without random numbers.
        inputs: its.
    """
    if not torch.is_grad_enabled():
        return block(*inputs)
    return checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _policy),
    )


def _policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    convolves = operator is torch.ops.aten.convolution.default
    return CheckpointPolicy.MUST_SAVE if convolves else CheckpointPolicy.PREFER_RECOMPUTE


def set_recompute(head: nn.Module, name: str = "the head") -> None:
    """Let each part of a head that can keep less do so: those whose ``recompute`` is a truth value.

    Args:
        head: any head.
        name: of it, for the message.

    Raises:
        UserError: no part of it can.
    """
    parts: list[Any] = [
        p for p in head.modules() if isinstance(getattr(p, "recompute", None), bool)
    ]
    if not parts:
        raise UserError(f"{name} keeps nothing that it could compute anew; leave it away")
    for part in parts:
        part.recompute = True
