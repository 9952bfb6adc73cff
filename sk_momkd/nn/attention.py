"""Gated attention over the instances of a bag: scores, pooling, and a network made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Blocks, embed
from .dropout import Dropout
from .initialization import initialise_normal
from .segment import segment_pool, segment_softmax


class GatedAttention(nn.Module):
    """Scores ``s_n = w . (tanh(V h_n + b_V) * sigmoid(U h_n + b_U)) + b_w``, before softmax.

    Parameters
    ----------
    dim : int
        Width M of the instances.
    hidden_dim : int
        Width L of the two arms, content and gate.
    gated : bool, default=True
        If False, ``s_n = w . tanh(V h_n + b_V) + b_w``.
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
    """Mean of each bag's rows, weighted by gated attention.

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


class AttentionMIL(nn.Module):
    """Patch embedding, gated attention pooling and a linear head.

    Parameters
    ----------
    in_features, n_classes, dim, attention_dim : int
        ``in_features -> dim``; ``attention_dim`` is the hidden width of the attention.
    dropout : float, default=0.0
        On the embedding and in both arms of the attention.
    head_dropout : float, default=0.0
        On the slide feature before the head; the returned feature is without dropout.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        dim: int,
        attention_dim: int,
        *,
        dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, dim)
        self.dropout = Dropout(dropout)
        self.pool = AttentionPool(dim, attention_dim, dropout)
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(dim, n_classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights from N(0, 1/fan_in); biases are zero."""
        initialise_normal(self, generator)

    def forward(
        self, x: Tensor | Blocks, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(n, in_features), (n,) -> feature (B, dim), logits (B, K), attention (n, 1)."""
        feature, attention = self.pool(self._embed(x), batch, n_bags)  # (B, dim), (n, 1)
        return feature, self.classify(feature.unsqueeze(1)), attention

    def attend(self, x: Tensor | Blocks, batch: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
        """Embedded patches (n, dim) and their weights (n, 1)."""
        h = self._embed(x)
        return h, segment_softmax(self.pool.attention(h), batch, n_bags)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the embedded patches: (B, 1, dim) -> (B, K)."""
        return self.head(self.head_dropout(pooled[:, 0]))

    def _embed(self, x: Tensor | Blocks) -> Tensor:
        return self.dropout(F.relu(embed(x, self.fc)))  # (n, dim)
