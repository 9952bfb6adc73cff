"""Moving average of a network (mean teacher)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """Exponential moving average of a network's parameters.

    Parameters
    ----------
    net : Module
        The network; a copy of it becomes the average.
    decay : float
        Largest weight of the old value in an update. Update t has the weight
        ``min(1 - 1 / t, decay)``, so that the first update is a plain copy.

    Attributes
    ----------
    net : Module
        The average.
    n_updates : int Tensor

    Notes
    -----
    ``torch.optim.swa_utils.AveragedModel`` overwrites the buffers at each update. Here the
    average keeps its own buffers, such as the running statistics of a batch norm.

    References
    ----------
    Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017.
    """

    n_updates: Tensor

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_updates", torch.tensor(0))

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average toward the parameters of `net`."""
        self.n_updates += 1
        keep = min(1 - 1 / int(self.n_updates), self.decay)
        for slow, fast in zip(self.net.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        """Output of the average, without gradient."""
        return self.net(*args)
