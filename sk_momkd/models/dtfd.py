"""DTFD-MIL: double-tier feature distillation (arXiv 2203.12081)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import GatedAttention
from ..nn.blocks import Blocks, embed
from ..nn.dropout import Dropout
from ..nn.patch_subsampling import Chunks, RandomChunks
from ..nn.segment import segment_mean, segment_softmax, segment_sum
from ..output import MILOutput

DISTILLATIONS = ("AFS", "MaxS", "MaxMinS")


@dataclass(frozen=True)
class DTFDOutput(MILOutput):
    """Output of DTFD-MIL; C chunks, of all shuffles together.

    Attributes
    ----------
    tier1_logits : Tensor of shape (C, K)
        A prediction per chunk (pseudo-bag).
    chunk_bag : Tensor of shape (C,)
        Bag of each chunk.
    """

    tier1_logits: Tensor
    chunk_bag: Tensor


class DTFD(nn.Module):
    """Slide classifier on features distilled from random chunks of the slide.

    Tier 1 classifies each chunk as if it were a slide and distils features from it; tier 2
    classifies the slide from these features.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_classes : int
    dim : int, default=512
        Width m of the reduced features.
    attention_dim : int, default=128
        Width of the arms of both attention networks.
    n_chunks : int, default=8
        Chunks per slide, at most one per patch.
    distillation : {"AFS", "MaxS", "MaxMinS"}, default="AFS"
        What is distilled from each chunk: its pooled feature, its best patches, or its best and
        worst patches.
    total_instances : int, default=8
        A chunk has ``max(1, total_instances // n_chunks)`` best patches and as many worst.
    joint : bool, default=False
        Train tier 1 with the loss of tier 2, too.
    n_shuffles : int, default=5
        Number of shuffles at inference, whose probabilities are averaged.
    split_seed : int, default=0
        Seed of the shuffles at inference.
    dropout : float, default=0
        Before both classifiers.

    Notes
    -----
    At inference the chunks of a slide depend only on its number of patches and `split_seed`, so
    that its prediction does not depend on the other slides of the batch. ``output.logits`` are
    then the logarithms of the mean probabilities. Patches are ranked by the probability of the
    last class; with more than two classes (ours), by that of the class that tier 1 finds most
    probable for the slide. ``output.attention`` is the weight of a patch in the rows that tier 2
    pools, mean of the shuffles. In the authors' program tier 1 is updated before tier 2 is
    differentiated, and its gradient is cleared afterwards; without `joint` the distilled features
    are detached, which is the same.

    References
    ----------
    Zhang et al. DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for
    Histopathology Whole Slide Image Classification. CVPR 2022.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        *,
        dim: int = 512,
        attention_dim: int = 128,
        n_chunks: int = 8,
        distillation: str = "AFS",
        total_instances: int = 8,
        joint: bool = False,
        n_shuffles: int = 5,
        split_seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.distillation, self.joint = distillation, joint
        self.n_best = max(1, total_instances // n_chunks)
        self.split = RandomChunks(n_chunks, n_shuffles, split_seed)
        self.reduction = nn.Linear(in_features, dim, bias=False)
        self.attention = GatedAttention(dim, attention_dim)
        self.classifier = nn.Linear(dim, n_classes)
        self.tier2_attention = GatedAttention(dim, attention_dim)
        self.tier2_classifier = nn.Linear(dim, n_classes)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,
        omics: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> DTFDOutput:
        features = F.relu(embed(x, self.reduction))  # f (n, m)
        scores = self.attention(features)  # (n, 1)
        splits = self.split(batch, n_bags)  # one in training, n_shuffles at inference
        tiers = [self._tiers(features, scores, chunks, n_bags) for chunks in splits]
        tier1, tier2, attention = zip(*tiers, strict=True)
        return DTFDOutput(
            logits=_mean_prediction(torch.stack(tier2)),  # (B, K)
            attention=torch.stack(attention).mean(dim=0),  # (n, 1)
            batch=batch,
            tier1_logits=torch.cat(tier1),  # (C, K)
            chunk_bag=torch.cat([chunks.bag for chunks in splits]),  # (C,)
        )

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Reduced features (n, m) and their weights in tier 2, a column per shuffle."""
        features = F.relu(embed(x, self.reduction))
        scores = self.attention(features)
        splits = self.split(batch, n_bags)
        weights = [self._tiers(features, scores, chunks, n_bags)[2] for chunks in splits]
        return features, torch.cat(weights, dim=1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the reduced features: (B, shuffles, m) -> (B, K)."""
        return _mean_prediction(self.tier2_classifier(self.dropout(pooled)).transpose(0, 1))

    def branches(self) -> dict[str, list[nn.Parameter]]:
        """Groups of parameters whose gradients the authors clip separately."""
        tier2 = [*self.tier2_attention.parameters(), *self.tier2_classifier.parameters()]
        return {
            "reduction": list(self.reduction.parameters()),
            "attention": list(self.attention.parameters()),
            "classifier": list(self.classifier.parameters()),
            "tier2": tier2,
        }

    def _tiers(
        self, features: Tensor, scores: Tensor, chunks: Chunks, n_bags: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tier-1 logits (C, K), tier-2 logits (B, K) and patch weights (n, 1) of one shuffle."""
        chunk, bag = chunks  # (n,), (C,)
        attention = segment_softmax(scores, chunk, len(bag))  # a (n, 1)
        weighted = attention * features  # (n, m)
        pooled = segment_sum(weighted, chunk, len(bag))  # z (C, m)
        tier1 = self.classifier(self.dropout(pooled))  # u (C, K)
        if self.distillation == "AFS":
            tier2, weights = self._second_tier(pooled, bag, n_bags)  # (B, K), (C, 1)
            return tier1, tier2, attention.detach() * weights[chunk]
        cam = self._cam(weighted.detach(), tier1.detach(), chunks, n_bags)  # p (n,)
        both_ends = self.distillation == "MaxMinS"
        chosen = _extremes(cam, chunk, len(bag), self.n_best, both_ends=both_ends)  # (R,)
        tier2, weights = self._second_tier(features[chosen], bag[chunk[chosen]], n_bags)
        return tier1, tier2, torch.zeros_like(scores).index_add(0, chosen, weights)

    def _second_tier(self, rows: Tensor, bag: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
        """Tier-2 logits (B, K) and the weight (R, 1) of each distilled row (R, m)."""
        rows = rows if self.joint else rows.detach()
        weights = segment_softmax(self.tier2_attention(rows), bag, n_bags)  # (R, 1)
        slide = segment_sum(weights * rows, bag, n_bags)  # (B, m)
        return self.tier2_classifier(self.dropout(slide)), weights.detach()

    @torch.no_grad()
    def _cam(self, weighted: Tensor, tier1: Tensor, chunks: Chunks, n_bags: int) -> Tensor:
        """Class activation of each patch, by which the patches of a chunk are ranked: (n,)."""
        activation = F.linear(weighted, self.classifier.weight).softmax(dim=1)  # (n, K)
        if activation.shape[1] == 2:
            return activation[:, 1]
        predicted = segment_mean(tier1.softmax(dim=1), chunks.bag, n_bags).argmax(dim=1)  # (B,)
        of_instance = predicted[chunks.bag][chunks.of_instance]  # (n,)
        return activation.gather(1, of_instance.unsqueeze(1)).squeeze(1)


def _extremes(cam: Tensor, chunk: Tensor, n_chunks: int, t: int, *, both_ends: bool) -> Tensor:
    """Rows of the `t` best patches of each chunk, and of the `t` worst; R of them."""
    order = cam.argsort(descending=True, stable=True)
    order = order[chunk[order].argsort(stable=True)]  # by chunk, the best first
    ranked = order.split(torch.bincount(chunk, minlength=n_chunks).tolist())
    ends = [part[:t] for part in ranked]
    if both_ends:
        ends += [part[-t:] for part in ranked]
    return torch.cat(ends)


def _mean_prediction(logits: Tensor) -> Tensor:
    """Logits whose softmax is the mean of the shuffles' softmax: (S, B, K) -> (B, K)."""
    if len(logits) == 1:
        return logits[0]
    return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
