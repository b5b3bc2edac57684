"""The peak memory of a training step, counted where there is neither the memory nor a GPU."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

Step = Callable[[nn.Module, torch.optim.Optimizer], object]


def count_peak(
    network: nn.Module, step: Step, optimizer_of: Callable[[nn.Module], torch.optim.Optimizer]
) -> int:
    """Count the bytes at the peak of a training step, without allocating or computing any of it.

    Counted are parameters, buffers, gradients, optimizer states, activations and temporary tensors
    between operators; not what lies inside of operators (workspaces of convolutions), what an
    allocator keeps beside, and what CUDA itself takes.

    Args:
        network: any, on any device, also on ``meta``; it stays as it is.
        step: taken with a copy of it and an optimizer that has its states already.
        optimizer_of: makes that.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = _without_content(network)
        optimizer = with_states(optimizer_of(fake))
        tracker = MemTracker()
        tracker.track_external(fake, optimizer)
        with tracker:
            step(fake, optimizer)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return peak["Total"]


def with_states(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let an optimizer have its states already, as in every step but the first.

    Args:
        optimizer: whose weights are moved by a gradient of 0.
    """
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _without_content(network: nn.Module) -> nn.Module:
    """Copy a network, its tensors new ones of the mode that is on.

    MemTracker hooks each parameter's gradient, frozen or not: what is frozen becomes a buffer.
    """
    tensors = (*network.parameters(), *network.buffers(), *_attributes(network))
    memo = {id(tensor): _empty(tensor) for tensor in tensors}
    fake = copy.deepcopy(network, memo)
    for module in fake.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return fake


def _attributes(network: nn.Module) -> Iterator[torch.Tensor]:
    """List the tensors that hang on modules as they are: a mode cannot copy those from others."""
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, torch.Tensor))


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(new, requires_grad=tensor.requires_grad) if is_parameter else new
