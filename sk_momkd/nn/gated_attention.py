"""Attention scores of instances: plain or gated (Ilse et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dropout import Dropout


class GatedAttention(nn.Module):
    """``s_n = w . (tanh(V h_n + b_V) * sigmoid(U h_n + b_U)) + b_w``, before any softmax.

    Parameters
    ----------
    dim : int
        Width M of the instances.
    hidden_dim : int
        Width L of the two arms.
    gated : bool, default=True
        Without the gate ``s_n = w . tanh(V h_n + b_V) + b_w``.
    dropout : float, default=0
        On both arms.
    """

    def __init__(
        self, dim: int, hidden_dim: int, *, gated: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.content = nn.Linear(dim, hidden_dim)  # V
        self.gate = nn.Linear(dim, hidden_dim) if gated else None  # U
        self.score = nn.Linear(hidden_dim, 1)  # w
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(n, dim) -> (n, 1)."""
        hidden = self.dropout(torch.tanh(self.content(h)))  # (n, L)
        if self.gate is not None:
            hidden = hidden * self.dropout(torch.sigmoid(self.gate(h)))  # (n, L)
        return self.score(hidden)
