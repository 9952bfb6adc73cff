"""ABMIL: attention-based deep multiple instance learning (arXiv 1802.04712)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, starmap

from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import GatedAttention
from ..nn.blocks import Blocks, embed
from ..nn.dropout import Dropout
from ..nn.segment import segment_pool, segment_softmax
from ..output import MILOutput


class ABMIL(nn.Module):
    """Slide classifier on the attention-weighted mean of embedded patches.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_classes : int
    dim : int, default=512
        Width M of the patch embedding.
    hidden_dims : sequence of int, default=()
        Widths of the layers between the features and the last layer of the embedding.
    attention_dim : int, default=128
        Width L of the two arms of the attention.
    gated : bool, default=True
    dropout : float, default=0.25
        After each layer of the embedding.
    attention_dropout : float, optional
        On both arms of the attention, by default `dropout`.

    Notes
    -----
    The original embeds digit images with a small convolutional network and has one sigmoid
    output and no dropout; for patch features the embedding is one linear layer with ReLU, and
    the head has a logit per class.

    References
    ----------
    Ilse, Tomczak, Welling. Attention-based Deep Multiple Instance Learning. ICML 2018.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        *,
        dim: int = 512,
        hidden_dims: Sequence[int] = (),
        attention_dim: int = 128,
        gated: bool = True,
        dropout: float = 0.25,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        in_attention = dropout if attention_dropout is None else attention_dropout
        first, *others = (*hidden_dims, dim)
        self.embedding = nn.Linear(in_features, first)
        self.deeper = nn.ModuleList(starmap(nn.Linear, pairwise((first, *others))))
        self.attention = GatedAttention(dim, attention_dim, gated=gated, dropout=in_attention)
        self.head = nn.Linear(dim, n_classes)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,)
        n_bags: int,
        *,
        y: Tensor | None = None,
        omics: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> MILOutput:
        embedding, attention = self.attend(x, edge_index, batch, n_bags)
        slide = segment_pool(attention, embedding, batch, n_bags)  # z (B, 1, M)
        return MILOutput(self.classify(slide), attention, batch)

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Embedded patches (n, M) and their weights (n, 1)."""
        embedding = self.dropout(F.relu(embed(x, self.embedding)))
        for layer in self.deeper:
            embedding = self.dropout(F.relu(layer(embedding)))  # h (n, M)
        scores = self.attention(embedding)  # s (n, 1)
        return embedding, segment_softmax(scores, batch, n_bags)  # a (n, 1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the embedded patches: (B, 1, M) -> (B, K)."""
        return self.head(pooled[:, 0])
