"""Parts of the distillation baselines: self-normalising layers, a path student, an EMA copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionPool
from .blocks import Blocks, embed
from .dropout import Dropout

_SATURATION = -1.7580993408473766  # where SELU goes for large negative input: -scale * alpha


class AlphaDropout(Dropout):
    """Dropout to SELU's negative saturation, rescaled to keep mean 0 and variance 1.

    A dropped entry becomes -1.758 before the affine map, so the result is signed.

    Parameters
    ----------
    p : float
        Probability of dropping an entry, below one.

    References
    ----------
    Klambauer et al. Self-Normalizing Neural Networks. NeurIPS 2017.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        scale = ((1 - self.p) * (1 + self.p * _SATURATION**2)) ** -0.5
        shift = -scale * _SATURATION * self.p
        return scale * (keep * x + (1 - keep) * _SATURATION) + shift


def normal_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every linear layer inside `module` from N(0, 1/fan_in), biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


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
