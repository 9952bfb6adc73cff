"""Attention over instances: plain and gated scores, pooling, tokens that attend to a slide."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout
from .segment import segment_pool, segment_softmax


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


class Tokens(nn.Module):
    """Learnable tokens, N(0, 1) at the start; `rows` is (n_tokens, dim)."""

    def __init__(self, n_tokens: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(n_tokens, dim))

    def reset_parameters(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.rows, generator=generator)


class MultiHeadAttention(nn.Module):
    """Attention of a few queries to a slide; no bias on query, key and value."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Of one slide or, with a dimension in front, of several of the same size.

        (T, d), (n, d) -> (T, d) and the scaled scores before softmax (heads, T, n)
        """
        q = self.query(queries).unflatten(-1, (self.n_heads, -1))  # (T, heads, c)
        k, v = (
            f(context).unflatten(-1, (self.n_heads, -1)) for f in (self.key, self.value)
        )  # (n, heads, c)
        scores = torch.einsum("...thc,...nhc->...htn", q, k) * q.shape[-1] ** -0.5
        weights = self.dropout(scores.softmax(dim=-1))  # (heads, T, n)
        return self.out(torch.einsum("...htn,...nhc->...thc", weights, v).flatten(-2)), scores


class GatedFeedForward(nn.Module):
    """GEGLU: twice 4 d wide, one half gating the other."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 8 * dim)
        self.second = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        value, gate = self.first(x).chunk(2, dim=-1)  # (..., 4 d) each
        return self.dropout(self.second(value * F.gelu(gate)))
