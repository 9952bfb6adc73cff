"""The slow copy of a network that teaches the network itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """Exponential moving average of a network's parameters (mean teacher).

    Buffers, such as a batch norm's statistics, are the copy's own.

    Parameters
    ----------
    net : Module
        Copied.
    decay : float
        Largest share of the old value in an update; update t keeps ``min(1 - 1 / t, decay)``,
        so the first one is a plain copy.

    Attributes
    ----------
    n_updates : int Tensor
    """

    n_updates: Tensor

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_updates", torch.tensor(0))

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move toward the parameters of `net`."""
        self.n_updates += 1
        keep = min(1 - 1 / int(self.n_updates), self.decay)
        for slow, fast in zip(self.net.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        """What the copy computes, without gradient."""
        return self.net(*args)
