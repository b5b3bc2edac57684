"""An exponential moving average of what a training moves (Polyak averaging)."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a network's trainable parameters and its buffers, kept beside them.

    The decay grows with the number of updates t, at most (1 + t) / (10 + t), so that the random
    start is soon forgotten. Frozen parameters need no average. Buffers do: a batch norm's
    statistics are those of the weights that train, and do not fit averaged ones.

    Args:
        network: unwrapped; the average begins at its weights.
        decay: 0 to below 1, per optimizer step.

    Attributes:
        averaged: the network's own tensors that have an average, by their names in its state.
        average: theirs.
        updates: so many steps were taken into the average.
        swapped: whether the network holds the average now.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.swapped = False
        saved = network.state_dict().keys()
        parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        buffers = {n: b for n, b in network.named_buffers() if n in saved and b.is_floating_point()}
        self.averaged: dict[str, torch.Tensor] = parameters | buffers
        self.average = {n: tensor.detach().clone() for n, tensor in self.averaged.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an optimizer step into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        move = get_ema_multi_avg_fn(decay)
        move(list(self.average.values()), list(self.averaged.values()), self.updates)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's tensors and the average; twice is as before."""
        self.swapped = not self.swapped
        for name, tensor in self.averaged.items():
            own = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name].copy_(own)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside a network that holds the average: what trains.

        The tensors are the network's own, not copies: they go on changing with it.
        """
        weights = {name: tensor.detach() for name, tensor in self.averaged.items()}
        return {"weights": weights, "updates": self.updates}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: the network holds the average and gets its own back.

        Until buffers had an average (0.1.0) the network held its own ones; theirs begins there.
        """
        self.updates = state["updates"]
        for name, tensor in self.averaged.items():
            self.average[name].copy_(tensor)
            if name in state["weights"]:
                tensor.copy_(state["weights"][name])
