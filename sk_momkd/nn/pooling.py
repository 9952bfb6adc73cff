"""Attention pooling of the bags of a flat batch."""

from __future__ import annotations

from torch import Tensor, nn

from .gated_attention import GatedAttention
from .segment import segment_pool, segment_softmax


class AttentionPool(nn.Module):
    """Mean of each bag's rows, weighted by one gated attention.

    Parameters
    ----------
    dim : int
        Width of the rows.
    attention_dim : int
        Hidden width of the attention.
    dropout : float, default=0.0
        In both arms of the attention.
    """

    def __init__(self, dim: int, attention_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = GatedAttention(dim, attention_dim, dropout=dropout)

    def forward(self, h: Tensor, batch: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
        """(n, dim), (n,) ascending -> (n_bags, dim) and the weights (n, 1)."""
        weights = segment_softmax(self.attention(h), batch, n_bags)
        return segment_pool(weights, h, batch, n_bags)[:, 0], weights
