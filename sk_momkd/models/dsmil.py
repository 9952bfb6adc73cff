"""DSMIL: dual-stream multiple instance learning (arXiv 2011.08939)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.blocks import Blocks, PatchEmbedding, embed, materialize
from ..nn.dropout import Dropout
from ..nn.initialization import initialise_orthogonal
from ..nn.segment import segment_pool, segment_softmax, segment_split
from ..output import MILOutput


@dataclass(frozen=True)
class DSMILOutput(MILOutput):
    """Output of DSMIL; ``logits`` are logarithms of sigmoids, see `DSMIL`.

    Attributes
    ----------
    bag_logits : Tensor of shape (B, K)
        Of the bag stream, with a sigmoid per class.
    max_logits : Tensor of shape (B, K)
        Of the critical instance of each class, with a sigmoid per class.
    critical : Tensor of shape (B, K)
        Row of the critical instance of each class in the batch.
    """

    bag_logits: Tensor
    max_logits: Tensor
    critical: Tensor


class DSMIL(nn.Module):
    """Slide classifier whose patches are weighted by their similarity to the critical ones.

    The patch features are not embedded; there is one attention map per class.

    Parameters
    ----------
    in_features : int
        Width D of the patch features.
    n_classes : int
    query_dim : int, default=128
    value_layer : bool, default=False
        Pass the values through dropout, a linear layer and ReLU; if False, they are the features.
    nonlinear : bool, default=True
        The query is two layers with ReLU and tanh; if False, it is one linear layer, and the value
        layer has no ReLU, as in the paper's equations.
    dropout : float, default=0
        In the value layer.
    average_streams : bool, default=False
        Predict the mean of the sigmoids of both streams instead of those of the bag stream.

    Notes
    -----
    In the original the negative class has no output. Here each class has one, and the sigmoids
    are trained with one-hot targets. ``output.logits`` are the logarithms of the predicted
    sigmoids, so that their softmax is the sigmoids divided by their sum; a softmax of
    ``bag_logits`` would count the evidence of two opposite outputs twice.

    References
    ----------
    Li, Li, Eliceiri. Dual-stream Multiple Instance Learning Network for Whole Slide Image
    Classification with Self-supervised Contrastive Learning. CVPR 2021.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        *,
        query_dim: int = 128,
        value_layer: bool = False,
        nonlinear: bool = True,
        dropout: float = 0.0,
        average_streams: bool = False,
    ) -> None:
        super().__init__()
        self.average_streams = average_streams
        self.instance = nn.Linear(in_features, n_classes)
        second = [nn.ReLU(), nn.Linear(query_dim, query_dim), nn.Tanh()] if nonlinear else []
        self.query = PatchEmbedding(nn.Linear(in_features, query_dim), *second)
        self.value: nn.Module = nn.Identity()
        if value_layer:
            relu = [nn.ReLU()] if nonlinear else []
            layer = PatchEmbedding(nn.Linear(in_features, in_features), *relu)
            self.value = nn.Sequential(Dropout(dropout), layer)
        self.head = nn.Conv1d(n_classes, n_classes, kernel_size=in_features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights; biases are zero."""
        initialise_orthogonal(self, generator)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, D), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,
        omics: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> DSMILOutput:
        x = materialize(x)  # it is read three times
        scores = embed(x, self.instance)  # c (n, K)
        critical = _argmax(scores.detach(), batch, n_bags)  # m (B, K)
        max_logits = scores.gather(0, critical)  # (B, K)

        attention = self._attention(x, critical, batch, n_bags)  # A (n, K)
        slide = segment_pool(attention, self.value(x), batch, n_bags)  # (B, K, D)
        bag_logits = self.head(slide).squeeze(2)  # z (B, K)
        logits = F.logsigmoid(bag_logits)
        if self.average_streams:
            logits = _mean_of_streams(bag_logits, max_logits)
        return DSMILOutput(logits, attention, batch, bag_logits, max_logits, critical)

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Values of the patches (n, D) and their weights (n, K).

        With `average_streams` features and weights of the second stream follow in further
        columns: (n, 2 D), (n, 2 K). Its weights are 1 for a critical instance and else 0.
        """
        x = materialize(x)
        critical = _argmax(embed(x, self.instance), batch, n_bags)
        attention = self._attention(x, critical, batch, n_bags)
        if not self.average_streams:
            return self.value(x), attention
        chosen = torch.zeros_like(attention).scatter(0, critical, 1.0)  # (n, K)
        return torch.cat([self.value(x), x], dim=1), torch.cat([attention, chosen], dim=1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of what `attend` gives: (B, maps, width) -> (B, K)."""
        k, width = self.instance.weight.shape
        bag_logits = self.head(pooled[:, :k, :width]).squeeze(2)
        if not self.average_streams:
            return F.logsigmoid(bag_logits)
        critical = pooled[:, k:, width:]  # (B, K, D)
        max_logits = (critical * self.instance.weight).sum(dim=2) + self.instance.bias
        return _mean_of_streams(bag_logits, max_logits)

    def _attention(self, x: Tensor, critical: Tensor, batch: Tensor, n_bags: int) -> Tensor:
        query = self.query(x)  # q (n, query_dim)
        similarity = _inner(query, query[critical], batch, n_bags)  # (n, K)
        return segment_softmax(similarity / math.sqrt(query.shape[1]), batch, n_bags)


def _argmax(scores: Tensor, batch: Tensor, n_bags: int) -> Tensor:
    """Row of the largest score of each bag and class, (B, K)."""
    sizes = torch.bincount(batch, minlength=n_bags)
    first = (sizes.cumsum(0) - sizes).unsqueeze(1)  # (B, 1)
    within = [part.argmax(dim=0) for part in segment_split(scores, batch, n_bags)]
    return torch.stack(within) + first


def _inner(query: Tensor, keys: Tensor, batch: Tensor, n_bags: int) -> Tensor:
    """Inner products of each row with the keys of its bag: (n, d), (B, K, d) -> (n, K)."""
    parts = segment_split(query, batch, n_bags)
    return torch.cat([part @ key.T for part, key in zip(parts, keys, strict=True)])


def _mean_of_streams(bag_logits: Tensor, max_logits: Tensor) -> Tensor:
    """Logarithms of the mean sigmoids of both streams."""
    return torch.logaddexp(F.logsigmoid(bag_logits), F.logsigmoid(max_logits)) - math.log(2)
