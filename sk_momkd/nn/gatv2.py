"""Parameters of graph attention (GATv2), named as in torch-geometric's ``GATv2Conv``."""

from __future__ import annotations

import torch
from torch import nn

from .dropout import Dropout


class GATv2(nn.Module):
    """Parameters of a multi-head GATv2 layer, heads concatenated.

    Node i receives from the nodes j whose edges end in i, and from itself:
    ``e_ji = a . LeakyReLU_0.2(W_l x_j + W_r x_i)``, softmax over j, ``sum_j alpha_ji W_l x_j``.
    `graph_layers` computes it together with what follows it.

    Parameters
    ----------
    in_features, out_features : int
        `out_features` counts all heads together.
    n_heads : int
    dropout : float
        On the attention weights.

    References
    ----------
    Brody, Alon, Yahav. How attentive are graph attention networks? ICLR 2022.
    """

    def __init__(self, in_features: int, out_features: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.att = nn.Parameter(torch.empty(1, n_heads, out_features // n_heads))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.lin_l = nn.Linear(in_features, out_features)
        self.lin_r = nn.Linear(in_features, out_features)
        self.dropout = Dropout(dropout)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as ``GATv2Conv`` does: Glorot-uniform weights, zero final bias."""
        for linear in (self.lin_l, self.lin_r):
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            bound = linear.in_features**-0.5
            nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
        bound = (6 / (self.att.shape[1] + self.att.shape[2])) ** 0.5
        nn.init.uniform_(self.att, -bound, bound, generator=generator)
        nn.init.zeros_(self.bias)
