"""How much of the memory is used: usage, active ratio, perplexity (Fig. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from .memory import ClassMemory
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


@torch.no_grad()
def memory_geometry(memory: ClassMemory, start: Tensor) -> dict[str, float]:
    """How far apart the components lie and how far they have moved.

    Parameters
    ----------
    memory : ClassMemory
    start : Tensor of shape (n_classes, n_components, dim)
        The directions at the start.

    Returns
    -------
    dict of float
        ``norm``: mean length of a row. ``cosine_within``: mean |cosine| of different rows of a
        class (0 for a single row). ``cosine_between``: mean over rows of the best match in
        another class. ``drift``: mean of 1 - cosine with the start.
    """
    rows = memory.directions()  # (K, m, d)
    k, m, _ = rows.shape
    cosine = torch.einsum("kid,ljd->kilj", rows, rows)
    own = torch.eye(k, dtype=torch.bool, device=rows.device).view(k, 1, k, 1)
    within = cosine.diagonal(dim1=0, dim2=2).abs().sum() - k * m
    return {
        "norm": float(memory.rows.norm(dim=2).mean()),
        "cosine_within": float(within / (k * m * max(m - 1, 1))),
        "cosine_between": float(cosine.masked_fill(own, -1.0).amax(dim=(2, 3)).mean()),
        "drift": float(1 - (rows * start).sum(dim=2).mean()),
    }
