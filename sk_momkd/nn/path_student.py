"""Attention MIL as the student of a distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Blocks
from .dropout import Dropout
from .embedding import embed
from .pooling import AttentionPool
from .self_normalizing import normal_weights


class PathStudent(nn.Module):
    """Embedding, gated attention pooling, linear head.

    Parameters
    ----------
    in_features, n_classes, dim, attention_dim : int
        ``in_features -> dim``; ``attention_dim`` is the hidden width of the attention.
    dropout : float, default=0.0
        On the embedding and in both arms of the attention.
    head_dropout : float, default=0.0
        On the slide feature before the head; the feature itself is returned as it is.
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
        """N(0, 1/fan_in) weights, zero biases."""
        normal_weights(self, generator)

    def forward(
        self, x: Tensor | Blocks, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(n, in_features), (n,) -> feature (B, dim), logits (B, K), attention (n, 1)."""
        h = self.dropout(F.relu(embed(x, self.fc)))  # (n, dim)
        feature, attention = self.pool(h, batch, n_bags)  # (B, dim), (n, 1)
        return feature, self.head(self.head_dropout(feature)), attention
