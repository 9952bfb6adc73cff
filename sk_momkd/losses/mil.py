"""Objectives of the methods that use histology alone: cross-entropy, DSMIL and DTFD-MIL."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..models.dsmil import DSMILOutput
from ..models.dtfd import DTFDOutput
from ..nn.segment import segment_mean
from ..output import MILOutput


def cross_entropy_terms(output: MILOutput, y: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each bag, ``-log softmax(z)_y``.

    Returns
    -------
    dict of Tensor
        ``ce`` of shape (B,).
    """
    return {"ce": F.cross_entropy(output.logits, y, reduction="none")}


def stream_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, ``-mean_c [t_c log s(z_c) + (1 - t_c) log s(-z_c)]``, s the sigmoid.

    (B, K), (B, K) -> (B,)
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    return loss.mean(dim=1)


def dsmil_terms(output: DSMILOutput, y: Tensor) -> dict[str, Tensor]:
    """Unweighted losses of the two streams; the original's weights are 1/2 and 1/2.

    Returns
    -------
    dict of Tensor
        ``bag, max`` of shape (B,).
    """
    targets = F.one_hot(y, output.bag_logits.shape[1])
    return {
        "bag": stream_loss(output.bag_logits, targets),
        "max": stream_loss(output.max_logits, targets),
    }


def dtfd_terms(output: DTFDOutput, y: Tensor) -> dict[str, Tensor]:
    """Unweighted losses of the two tiers; the original's weights are 1 and 1.

    Returns
    -------
    dict of Tensor
        ``tier1`` (mean over the chunks of a bag) and ``tier2`` of shape (B,).
    """
    chunk_loss = F.cross_entropy(output.tier1_logits, y[output.chunk_bag], reduction="none")  # (C,)
    return {
        "tier1": segment_mean(chunk_loss, output.chunk_bag, len(y)),
        "tier2": F.cross_entropy(output.logits, y, reduction="none"),
    }
