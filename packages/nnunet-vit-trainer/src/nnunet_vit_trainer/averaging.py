"""An exponential moving average of what trains (Polyak averaging)."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a network's trainable parameters, kept beside them.

    The decay grows with the number of updates t, at most (1 + t) / (10 + t), so that the random
    start is soon forgotten. Frozen parameters need no average; buffers (BatchNorm's statistics)
    are averages already.

    Args:
        network: unwrapped; the average begins at its weights.
        decay: 0 to below 1, per optimizer step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an optimizer step into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        move = get_ema_multi_avg_fn(decay)
        move(list(self.average.values()), list(self.parameters.values()), self.updates)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and the average; twice is as before."""
        for name, parameter in self.parameters.items():
            weight = parameter.clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(weight)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside a network that holds the average: the weights."""
        weights = {name: p.detach().clone() for name, p in self.parameters.items()}
        return {"weights": weights, "updates": self.updates}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: the network holds the average and gets the weights back."""
        self.updates = state["updates"]
        for name, parameter in self.parameters.items():
            self.average[name].copy_(parameter)
            parameter.copy_(state["weights"][name])
