"""Cross-attention from trainable tokens to the patches of a slide."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout


class Tokens(nn.Module):
    """Trainable tokens, drawn from N(0, 1); `rows` has the shape (n_tokens, dim)."""

    def __init__(self, n_tokens: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(n_tokens, dim))

    def reset_parameters(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.rows, generator=generator)


class MultiHeadAttention(nn.Module):
    """Attention from a few queries to the patches of a slide; no bias on query, key and value."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Attended queries, and the scaled scores before softmax.

        With a leading dimension, for several slides of the same size.
        (T, d), (n, d) -> (T, d), (heads, T, n)
        """
        q = self.query(queries).unflatten(-1, (self.n_heads, -1))  # (T, heads, c)
        k, v = (
            f(context).unflatten(-1, (self.n_heads, -1)) for f in (self.key, self.value)
        )  # (n, heads, c)
        scores = torch.einsum("...thc,...nhc->...htn", q, k) * q.shape[-1] ** -0.5
        weights = self.dropout(scores.softmax(dim=-1))  # (heads, T, n)
        return self.out(torch.einsum("...htn,...nhc->...thc", weights, v).flatten(-2)), scores


class GatedFeedForward(nn.Module):
    """GEGLU: two hidden layers of width 4 d, of which one gates the other."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 8 * dim)
        self.second = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        value, gate = self.first(x).chunk(2, dim=-1)  # (..., 4 d) each
        return self.dropout(self.second(value * F.gelu(gate)))
