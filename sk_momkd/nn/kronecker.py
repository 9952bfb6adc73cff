"""Gated outer product of two modalities: the Kronecker fusion of pathology and expression."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout


class Bilinear(nn.Module):
    """Bilinear forms of two vectors, ``v1^T W_o v2 + b_o`` for each output o.

    Parameters
    ----------
    dim : int
        Width of both vectors.
    n_out : int

    Attributes
    ----------
    weight : Parameter of shape (n_out, dim, dim)
    bias : Parameter of shape (n_out,)
    """

    def __init__(self, dim: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, dim, dim))
        self.bias = nn.Parameter(torch.empty(n_out))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights and biases from U(+-1/sqrt(dim)), as torch does."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def forward(self, v1: Tensor, v2: Tensor) -> Tensor:
        """(n, dim), (n, dim) -> (n, n_out); equal to `F.bilinear`, in one matrix product."""
        pairs = torch.einsum("ni,nj->nij", v1, v2).flatten(1)  # (n, dim^2)
        return F.linear(pairs, self.weight.flatten(1), self.bias)


class GatedOuterProduct(nn.Module):
    """Outer product of two vectors, each gated by bilinear forms of the pair.

    A constant 1 is appended to each factor, so that the product also holds the factors.

    Parameters
    ----------
    dim : int
        Width of both vectors.
    gate_dim : int
        Width of each factor before the 1 is appended.
    dropout : float
        On the factors and on the product.

    References
    ----------
    Chen et al. Pathomic Fusion. IEEE Transactions on Medical Imaging, 2022.
    """

    def __init__(self, dim: int, gate_dim: int, dropout: float) -> None:
        super().__init__()
        self.first = _GatedFactor(dim, gate_dim, dropout)
        self.second = _GatedFactor(dim, gate_dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, v1: Tensor, v2: Tensor) -> Tensor:
        """(n, dim), (n, dim) -> (n, (gate_dim + 1)^2); the order of the two matters."""
        o1 = self.first(v1, v1, v2)  # (n, gate_dim + 1)
        o2 = self.second(v2, v1, v2)  # (n, gate_dim + 1)
        return self.dropout(torch.einsum("ni,nj->nij", o1, o2).flatten(1))


class _GatedFactor(nn.Module):
    def __init__(self, dim: int, gate_dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, gate_dim)
        self.gate = Bilinear(dim, gate_dim)
        self.out = nn.Linear(gate_dim, gate_dim)
        self.dropout = Dropout(dropout)

    def forward(self, own: Tensor, v1: Tensor, v2: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(own)) * self.gate(v1, v2).sigmoid()  # (n, gate_dim)
        return F.pad(self.dropout(F.relu(self.out(hidden))), (0, 1), value=1.0)
