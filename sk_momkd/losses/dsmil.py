"""The objective of DSMIL: both streams against the label, a sigmoid per class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..models.dsmil import DSMILOutput


def stream_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the classes: (B, K), (B, K) -> (B,)."""
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    return loss.mean(dim=1)


def dsmil_terms(output: DSMILOutput, y: Tensor) -> dict[str, Tensor]:
    """Losses of the two streams, unweighted; the original halves both.

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
