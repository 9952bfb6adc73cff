"""Graph attention (GATv2) with the parameters of torch-geometric's ``GATv2Conv``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout, Mask
from .edges import Edges
from .precision import mixed_linear
from .segment import segment_softmax, segment_sum

_ROWS = 4096  # receivers at once, without gradients


class GATv2(nn.Module):
    """Multi-head GATv2 layer, heads concatenated.

    Node i receives from the nodes j whose edges end in i, and from itself:
    ``e_ji = a . LeakyReLU_0.2(W_l x_j + W_r x_i)``, softmax over j, ``sum_j alpha_ji W_l x_j``.

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

    def forward(self, x: Tensor, edge_index: Tensor | Edges) -> Tensor:
        """(n, in_features), (2, n_edges) -> (n, out_features), float32 where `x` is bfloat16."""
        edges = Edges.of(edge_index, len(x))
        left, right = (mixed_linear(x, linear) for linear in (self.lin_l, self.lin_r))
        mask = self.dropout.mask()
        # Without gradients nothing is kept, so that chunks of receivers save memory.
        size = len(x) if torch.is_grad_enabled() or mask.p > 0 else _ROWS
        parts = [
            self._attend(left, right[start : start + size], edges, start, mask)
            for start in range(0, len(x), size)
        ]
        return torch.cat(parts) + self.bias  # (n, out)

    def _attend(self, left: Tensor, right: Tensor, edges: Edges, start: int, mask: Mask) -> Tensor:
        """Weighted sums of the messages to the receivers from `start` on: (rows, out)."""
        sender, receiver = edges.pairs(start, start + len(right))  # (E,) each
        message = left.index_select(0, sender)  # (E, out)
        pair = F.leaky_relu(message + right.index_select(0, receiver), 0.2)  # (E, out)
        heads = (-1, self.n_heads, self.att.shape[2])
        logits = (pair.view(heads) * self.att).sum(dim=2)  # (E, heads)
        alpha = mask.apply(segment_softmax(logits, receiver, len(right)))  # (E, heads)
        weighted = (message.view(heads) * alpha.unsqueeze(2)).flatten(1)  # (E, out)
        return segment_sum(weighted, receiver, len(right))
