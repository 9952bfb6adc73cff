"""Soft labels, and objectives of the methods of histology alone: cross-entropy, DSMIL, DTFD-MIL."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..models.dsmil import DSMILOutput
from ..models.dtfd import DTFDOutput
from ..nn.segment import segment_mean, true_positions
from ..output import MILOutput


def soft_labels(
    y: Tensor,
    n_classes: int,
    *,
    smoothing: float = 0.0,
    teacher: Tensor | None = None,
    paired: Tensor | None = None,
    weight: float = 0.0,
) -> Tensor:
    """Targets of the cross-entropy, ``(1 - w) ((1 - e) onehot(y) + e / K) + w s`` (ours).

    The teacher's s is used for the paired bags alone; for the others w is 0.
    (B,), (P, K), (B,) -> (B, K)
    """
    target = F.one_hot(y, n_classes).float()
    if smoothing:
        target = target * (1 - smoothing) + smoothing / n_classes
    if teacher is None or paired is None or not weight:
        return target
    if len(teacher) == len(y):
        return (1 - weight) * target + weight * teacher
    known = true_positions(paired, len(teacher))
    target[known] = (1 - weight) * target[known] + weight * teacher
    return target


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Cross-entropy of each bag, ``-sum_c t_c log softmax(z)_c``, with t one-hot by default.

    (B, K), (B,), (B, K) -> (B,)
    """
    goal = y if target is None else target.to(logits.dtype)
    return F.cross_entropy(logits, goal, reduction="none")


def cross_entropy_terms(
    output: MILOutput, y: Tensor, target: Tensor | None = None
) -> dict[str, Tensor]:
    """Cross-entropy of each bag with its label or, where given, its soft label.

    Returns
    -------
    dict of Tensor
        ``ce`` of shape (B,).
    """
    return {"ce": cross_entropy(output.logits, y, target)}


def stream_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, ``-mean_c [t_c log s(z_c) + (1 - t_c) log s(-z_c)]``, s the sigmoid.

    (B, K), (B, K) -> (B,)
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    return loss.mean(dim=1)


def dsmil_terms(output: DSMILOutput, y: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
    """Unweighted losses of the two streams; the original's weights are 1/2 and 1/2.

    Returns
    -------
    dict of Tensor
        ``bag, max`` of shape (B,).
    """
    targets = F.one_hot(y, output.bag_logits.shape[1]) if target is None else target
    return {
        "bag": stream_loss(output.bag_logits, targets),
        "max": stream_loss(output.max_logits, targets),
    }


def dtfd_terms(output: DTFDOutput, y: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
    """Unweighted losses of the two tiers; the original's weights are 1 and 1.

    Returns
    -------
    dict of Tensor
        ``tier1`` (mean over the chunks of a bag) and ``tier2`` of shape (B,).
    """
    bag = output.chunk_bag
    of_chunks = None if target is None else target[bag]
    chunk_loss = cross_entropy(output.tier1_logits, y[bag], of_chunks)  # (C,)
    return {
        "tier1": segment_mean(chunk_loss, bag, len(y)),
        "tier2": cross_entropy(output.logits, y, target),
    }
