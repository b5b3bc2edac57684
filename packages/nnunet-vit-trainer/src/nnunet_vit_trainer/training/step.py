"""One optimizer step: precision, accumulation, clipping, and what is done with a bad gradient.

The device decides whether the step is taken, and the outcome is read when it is wanted: in between
a CUDA device is not waited for.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vit_backbone import UserError
from vit_backbone.segmentation.precision import cuda_has_bfloat16


def resolve_amp_dtype(amp_dtype: str, device_type: str) -> torch.dtype | None:
    """Return the dtype of autocast; ``None`` is float32 without autocast.

    Args:
        amp_dtype: ``auto`` (on CUDA bfloat16, or float16 where the device lacks it; float32
            elsewhere, as nnU-Net does), ``bfloat16``, ``float16`` or ``float32``.
        device_type: ``cuda``, ``cpu`` or ``mps``.

    Raises:
        UserError: float16 without CUDA, where nothing scales the loss.
    """
    if amp_dtype == "auto":
        if device_type != "cuda":
            return None
        return torch.bfloat16 if cuda_has_bfloat16() else torch.float16
    if amp_dtype == "float16" and device_type != "cuda":
        raise UserError(
            f"train.amp_dtype: float16 needs CUDA, the device is {device_type}; use auto"
        )
    return None if amp_dtype == "float32" else getattr(torch, amp_dtype)


def training_step(
    network: nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[torch.Tensor, Any]],
    *,
    gradient_clip: float,
    amp_dtype: torch.dtype | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
) -> "Outcome":
    """Take one step on the mean loss of some batches, unless the loss or a gradient is not finite.

    A step that is not taken leaves weights, batch norms' statistics and optimizer as they were, on
    all ranks alike.

    Args:
        network: in training mode, perhaps wrapped in DDP.
        loss: of output and target.
        optimizer: of the network's trainable parameters.
        batches: (image, target) pairs on the network's device, at least one; image (B, C, H, W),
            target (B, 1 or regions, H, W), or one per output.
        gradient_clip: the gradient's norm is cut to this, of all whose rate is not 0.
        amp_dtype: of autocast; ``None`` is float32.
        grad_scaler: for float16.

    Returns:
        The loss before the step, and whether the step was taken.
    """
    optimizer.zero_grad(set_to_none=True)
    device = batches[0][0].device
    statistics = [(tensor, tensor.clone()) for tensor in _statistics_of(network)]
    values = []
    for i, (image, target) in enumerate(batches):
        last = i == len(batches) - 1
        waits = isinstance(network, DistributedDataParallel) and not last
        with network.no_sync() if waits else nullcontext():
            with torch.autocast(device.type, amp_dtype, enabled=amp_dtype is not None):
                value = loss(network(image), target) / len(batches)
            (value if grad_scaler is None else grad_scaler.scale(value)).backward()
        values.append(value.detach())
    if grad_scaler is not None:
        grad_scaler.unscale_(optimizer)
    # What sleeps has gradients too, which would shorten the others' steps.
    sleeping = {p for group in optimizer.param_groups if not group["lr"] for p in group["params"]}
    moving = [p for p in network.parameters() if p not in sleeping]
    norm = nn.utils.clip_grad_norm_(moving, gradient_clip)
    total = torch.stack(values).sum()
    finite = torch.isfinite(norm) & torch.isfinite(total)
    if sleeping:  # their moments are kept
        asleep = [p.grad for p in sleeping if p.grad is not None]
        finite &= torch.isfinite(nn.utils.get_total_norm(asleep))
    finite = _on_every_rank(finite)
    _step_if(finite, optimizer, grad_scaler)
    for tensor, before in statistics:  # what is not finite would stay in them for ever
        tensor.copy_(torch.where(finite, tensor, before))
    return Outcome(total, finite)


def _statistics_of(network: nn.Module) -> list[torch.Tensor]:
    """List the running means and variances of a network's norms."""
    ends = ("running_mean", "running_var")
    return [tensor for name, tensor in network.named_buffers() if name.endswith(ends)]


class Outcome:
    """What a step came to, on its way from the device.

    Args:
        loss: a number on the device.
        taken: a truth value there.
    """

    def __init__(self, loss: torch.Tensor, taken: torch.Tensor) -> None:
        values = torch.stack([loss.float(), taken.float()])
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        stream = torch.cuda.current_stream(values.device) if values.is_cuda else None
        self._arrival = stream and stream.record_event()

    def read(self) -> tuple[float, bool]:
        """Wait for this step, not for what was begun after it; return loss, and whether taken."""
        if self._arrival is not None:
            self._arrival.synchronize()
        loss, taken = self._values.tolist()
        return loss, bool(taken)


def _step_if(
    condition: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    grad_scaler: torch.amp.GradScaler | None,
) -> None:
    """Step where a condition on the device holds.

    AdamW's fused kernel asks there. So would SGD's, but where it leaves out its first step its
    momentum holds whatever was in memory.
    """
    if grad_scaler is not None:
        if condition:
            grad_scaler.step(optimizer)
        grad_scaler.update()
    elif isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["fused"]:
        fused: Any = optimizer  # as torch's GradScaler hands it over
        fused.grad_scale, fused.found_inf = None, (~condition).float()
        fused.step()
        del fused.grad_scale, fused.found_inf
    elif condition:
        optimizer.step()


def _on_every_rank(condition: torch.Tensor) -> torch.Tensor:
    """Decide together: ranks that go different ways would have different weights."""
    if not (dist.is_available() and dist.is_initialized()):
        return condition
    condition = condition.int()
    dist.all_reduce(condition, dist.ReduceOp.MIN)
    return condition.bool()


def deep_supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weigh the outputs, finest first, by halves: 1, 1/2, 1/4, ... with the sum 1.

    nnU-Net gives the coarsest one 0, which would leave its classifier without a gradient.
    """
    weights = [0.5**i for i in range(outputs)]
    return tuple(weight / sum(weights) for weight in weights)


def to_device(data: torch.Tensor | list[torch.Tensor], device: torch.device) -> Any:
    """Move a tensor, or each of a list, to a device."""
    if isinstance(data, list):
        return [to_device(item, device) for item in data]
    return data.to(device, non_blocking=True)
