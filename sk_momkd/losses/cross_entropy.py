"""The objective of models that are trained on their logits alone."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..output import MILOutput


def cross_entropy_terms(output: MILOutput, y: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each bag, ``ce = -log softmax(z)_y``: {"ce": (B,)}."""
    return {"ce": F.cross_entropy(output.logits, y, reduction="none")}
