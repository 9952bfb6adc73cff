"""Encoders of the two modalities: the patch graph and the expression vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout
from .gatv2 import GATv2, with_self_loops


class GraphEncoder(nn.Module):
    """Two GATv2 layers with residuals; their larger activation is the patch embedding F.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    dim : int
        Width D of the embedding, all heads together.
    n_heads : int
    dropout : float
        On the layers' outputs and on the attention weights.
    """

    def __init__(self, in_features: int, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.gat1 = GATv2(in_features, dim, n_heads, dropout)
        self.gat2 = GATv2(dim, dim, n_heads, dropout)
        self.residual = nn.Linear(in_features, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """(n, in_features), (2, n_edges) -> F (n, dim)."""
        edges = with_self_loops(edge_index, len(x))
        first = self.dropout(F.elu(self.norm1(self.gat1(x, edges)))) + self.residual(x)
        second = self.dropout(F.elu(self.norm2(self.gat2(first, edges)))) + first
        return torch.maximum(first, second)


class OmicsBranch(nn.Module):
    """Expression encoder, its projection to the memory's space, and the decoder.

    Parameters
    ----------
    n_genes, dim, projection_dim, hidden_dim : int
        ``n_genes -> hidden_dim -> dim``, and back; ``dim -> projection_dim``.
    dropout : float
    """

    def __init__(
        self, n_genes: int, dim: int, projection_dim: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = _two_layers(n_genes, hidden_dim, dim, dropout)
        self.decoder = _two_layers(dim, hidden_dim, n_genes, dropout)
        self.projector = nn.Linear(dim, projection_dim)

    def forward(self, omics: Tensor) -> tuple[Tensor, Tensor]:
        """(n, n_genes) -> F_N-omics (n, projection_dim), reconstruction (n, n_genes)."""
        code = self.encoder(omics)
        return F.normalize(self.projector(code), dim=1), self.decoder(code)


def _two_layers(n_in: int, n_hidden: int, n_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, n_hidden),
        nn.LayerNorm(n_hidden),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(n_hidden, n_out),
    )
