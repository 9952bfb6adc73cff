"""How much of the memory is used: usage, active ratio, perplexity (Fig. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from .segment import segment_mean


def component_usage(affinity: Tensor, batch: Tensor, n_bags: int) -> Tensor:
    """Share of each bag's patches whose best match in a memory is each component.

    (n, n_classes, n_components) -> (n_bags, n_classes, n_components), rows sum to one. The mean
    over bags is the slide-balanced usage u of Fig. 3.
    """
    nearest = torch.nn.functional.one_hot(affinity.argmax(dim=2), affinity.shape[2])
    return segment_mean(nearest.double(), batch, n_bags)


def active_ratio(usage: Tensor, threshold: float | None = None) -> float:
    """Share of all components used more than `threshold`, by default ``1 / (10 n)``.

    Parameters
    ----------
    usage : Tensor of shape (n_classes, n_components)
    """
    threshold = 1 / (10 * usage.shape[1]) if threshold is None else threshold
    return float((usage > threshold).double().mean())


def perplexity(usage: Tensor) -> Tensor:
    """Effective number of components per memory, ``exp(-sum u ln u)`` in [1, n].

    (n_classes, n_components) -> (n_classes,)
    """
    return torch.special.entr(usage.double()).sum(dim=1).exp()
