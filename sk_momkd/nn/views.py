"""Views of slides: a random part of the patches, or all but the most telling ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .dropout import Stochastic
from .segment import segment_split


class RandomView(Stochastic):
    """In training a random share of each bag's instances, else all of them.

    Parameters
    ----------
    share : float
        In (0, 1], rounded up to whole instances.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, batch: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
        """(n, d), (n,) ascending -> the rows of the view and their bags."""
        if not self.training or self.share == 1:
            return x, batch
        where = "cpu" if self.generator is None else self.generator.device
        rows, start = [], 0
        for size in torch.bincount(batch, minlength=n_bags).tolist():
            order = torch.randperm(size, generator=self.generator, device=where)
            kept = order[: math.ceil(self.share * size)].sort().values
            rows.append(kept.to(x.device) + start)
            start += size
        seen = torch.cat(rows)
        return x[seen], batch[seen]

    def extra_repr(self) -> str:
        return f"share={self.share}"


def highest_in_bags(values: Tensor, batch: Tensor, n_bags: int, share: float) -> Tensor:
    """Mark the largest values of each bag, a share of it but at least one.

    (n,), (n,) ascending -> (n,) bool
    """
    marks = [highest(part, share) for part in segment_split(values, batch, n_bags)]
    return torch.cat(marks)


def highest(values: Tensor, share: float) -> Tensor:
    """Mark the largest values along the last axis, a share of it but at least one."""
    k = max(1, int(share * values.shape[-1]))
    top = values.topk(k, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, top, True)
