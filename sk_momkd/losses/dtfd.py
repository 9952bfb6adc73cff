"""The objective of DTFD-MIL: chunks and slides against the label of the slide."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..models.dtfd import DTFDOutput
from ..nn.segment import segment_mean


def dtfd_terms(output: DTFDOutput, y: Tensor) -> dict[str, Tensor]:
    """Losses of the two tiers, unweighted; the original's weights are 1 and 1.

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
