"""WiKG: dynamic graph representation with knowledge-aware attention (arXiv 2403.07719)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.blocks import Blocks, embed
from ..nn.dropout import Dropout
from ..nn.segment import segment_mean, segment_pool, segment_softmax, segment_split
from ..output import MILOutput

ATTENTIONS = ("sum_product", "dot")
READOUTS = ("attention", "mean")


class WiKG(nn.Module):
    """Slide classifier on a graph that is learned from the patches.

    Each patch receives messages from those whose tail embeddings have the largest inner products
    with its head embedding. The scores of all pairs are computed in blocks of rows and not kept,
    so that memory is linear in the number of patches.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_classes : int
    dim : int, default=512
        Width d of the embeddings.
    n_neighbors : int, default=6
        k, at most the number of patches. A patch can be its own neighbor.
    attention : {"sum_product", "dot"}, default="sum_product"
        Logit of a neighbor n with gate g: (sum n) (sum g), as in the authors' program, or the
        inner product n . g, as in the paper.
    readout : {"attention", "mean"}, default="attention"
        The paper's is "attention"; the authors' training script uses "mean".
    dropout : float, default=0.3
        On the updated patches.
    scores_at_once : int, default=2**24
        Entries per block of scores; the result does not depend on it.

    Notes
    -----
    The authors' module has three more linear layers (394,240 parameters at d = 512) that are
    not used; they are left out.

    References
    ----------
    Li et al. Dynamic Graph Representation with Knowledge-aware Attention for Histopathology
    Whole Slide Image Analysis. CVPR 2024.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        *,
        dim: int = 512,
        n_neighbors: int = 6,
        attention: str = "sum_product",
        readout: str = "attention",
        dropout: float = 0.3,
        scores_at_once: int = 2**24,
    ) -> None:
        super().__init__()
        self.n_neighbors, self.attention = n_neighbors, attention
        self.scores_at_once = scores_at_once
        self.embedding = nn.Linear(in_features, dim)
        self.head = nn.Linear(dim, dim)
        self.tail = nn.Linear(dim, dim)
        self.of_sum = nn.Linear(dim, dim)  # W_1
        self.of_product = nn.Linear(dim, dim)  # W_2
        half = max(1, dim // 2)
        self.readout = (
            nn.Sequential(nn.Linear(dim, half), nn.LeakyReLU(), nn.Linear(half, 1))
            if readout == "attention"
            else None
        )
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, n_classes)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used: the graph is learned
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,
        omics: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> MILOutput:
        updated, attention = self.attend(x, edge_index, batch, n_bags)
        slide = segment_pool(attention, updated, batch, n_bags)  # (B, 1, d)
        return MILOutput(self.classify(slide), attention, batch)

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Updated patches (n, d) and their weights (n, 1)."""
        patches = F.leaky_relu(embed(x, self.embedding))  # (n, d)
        patches = (patches + segment_mean(patches, batch, n_bags)[batch]) / 2  # (n, d)
        head, tail = self.head(patches), self.tail(patches)  # h, t (n, d)
        slides = (segment_split(part, batch, n_bags) for part in (head, tail))
        message = torch.cat([self._messages(h, t) for h, t in zip(*slides, strict=True)])  # e

        updated = F.leaky_relu(self.of_sum(head + message))  # (n, d)
        updated = updated + F.leaky_relu(self.of_product(head * message))  # y (n, d)
        updated = self.dropout(updated)
        return updated, segment_softmax(self._gate(updated), batch, n_bags)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the updated patches: (B, 1, d) -> (B, K)."""
        return self.classifier(self.norm(pooled[:, 0]))

    def _gate(self, updated: Tensor) -> Tensor:
        return updated.new_zeros(len(updated), 1) if self.readout is None else self.readout(updated)

    def _messages(self, head: Tensor, tail: Tensor) -> Tensor:
        """Sum of the messages to each patch of one slide: (N, d), (N, d) -> (N, d)."""
        k = min(self.n_neighbors, len(tail))
        n_rows = max(1, self.scores_at_once // max(len(tail), k * tail.shape[1]))
        return torch.cat([self._message(h, tail, k) for h in head.split(n_rows)])

    def _message(self, head: Tensor, tail: Tensor, k: int) -> Tensor:
        with torch.no_grad():  # selection only; the chosen scores are computed again with gradient
            chosen = (head @ tail.T).topk(k, dim=1).indices  # (b, k)
        neighbor = tail[chosen]  # n (b, k, d)
        scores = torch.einsum("bd,bkd->bk", head, neighbor) / math.sqrt(head.shape[1])  # S
        share = scores.softmax(dim=1).unsqueeze(2)  # p (b, k, 1)
        relation = torch.lerp(head.unsqueeze(1), neighbor, share)  # p n + (1 - p) h (b, k, d)
        gate = torch.tanh(head.unsqueeze(1) + relation)  # g (b, k, d)
        if self.attention == "sum_product":
            logits = neighbor.sum(dim=2) * gate.sum(dim=2)  # u (b, k)
        else:
            logits = (neighbor * gate).sum(dim=2)  # u (b, k)
        return torch.einsum("bk,bkd->bd", logits.softmax(dim=1), neighbor)  # e (b, d)
