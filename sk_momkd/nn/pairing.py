"""The paired part of a flat batch."""

from __future__ import annotations

from torch import Tensor


def paired_instances(x: Tensor, batch: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
    """Instances of the bags with omics, and their bag's place among those.

    (n, ...), (n,), (B,) bool -> (n_paired, ...), (n_paired,) with values below P
    """
    keep = paired[batch]
    return x[keep], (paired.cumsum(0) - 1)[batch[keep]]
