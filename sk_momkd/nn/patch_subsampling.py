"""Parts of bags: random chunks (pseudo-bags), random subsamples, the highest-scoring patches."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .dropout import Stochastic
from .segment import segment_split


class Chunks(NamedTuple):
    """A batch of n instances in B bags, cut into C chunks.

    Attributes
    ----------
    of_instance : Tensor of shape (n,)
        Chunk of each instance.
    bag : Tensor of shape (C,)
        Bag of each chunk, ascending.
    """

    of_instance: Tensor
    bag: Tensor


class RandomChunks(Stochastic):
    """Shuffle each bag and cut it into `n_chunks` chunks whose sizes differ by at most one.

    Training uses one shuffle, drawn from `generator`. Inference uses `n_shuffles`, whose seed
    depends only on the bag's number of instances, so that a bag is always cut in the same way,
    whatever other bags the batch holds. A bag with fewer instances than `n_chunks` gets one
    chunk per instance.

    Parameters
    ----------
    n_chunks : int
    n_shuffles : int
        At inference.
    seed : int, default=0
        Seed of the shuffles at inference.
    """

    def __init__(self, n_chunks: int, n_shuffles: int, seed: int = 0) -> None:
        super().__init__()
        self.n_chunks, self.n_shuffles, self.seed = n_chunks, n_shuffles, seed

    def forward(self, batch: Tensor, n_bags: int) -> list[Chunks]:
        """(n,), ascending -> one `Chunks` per shuffle."""
        sizes = torch.bincount(batch, minlength=n_bags).tolist()
        shuffles = [None] if self.training else range(self.n_shuffles)
        return [self._cut(sizes, shuffle, batch.device) for shuffle in shuffles]

    def _cut(self, sizes: list[int], shuffle: int | None, device: torch.device) -> Chunks:
        chunks, n_before = [], 0
        n_chunks = [min(self.n_chunks, size) for size in sizes]
        for size, m in zip(sizes, n_chunks, strict=True):
            cut = torch.arange(size, device=device) * m // max(size, 1)  # sizes differ by <= 1
            chunk = torch.empty_like(cut)
            chunk[self._order(size, shuffle).to(device)] = cut + n_before
            chunks.append(chunk)
            n_before += m
        bags = torch.arange(len(sizes), device=device)
        return Chunks(
            torch.cat(chunks), bags.repeat_interleave(torch.tensor(n_chunks, device=device))
        )

    def _order(self, size: int, shuffle: int | None) -> Tensor:
        if shuffle is not None:
            generator = torch.Generator().manual_seed(self.seed + 1_000_003 * size + shuffle)
            return torch.randperm(size, generator=generator)
        where = "cpu" if self.generator is None else self.generator.device
        return torch.randperm(size, generator=self.generator, device=where)

    def extra_repr(self) -> str:
        return f"n_chunks={self.n_chunks}, n_shuffles={self.n_shuffles}, seed={self.seed}"


class PatchSubsampling(Stochastic):
    """Draw a random share of each bag's instances in training; keep all of them otherwise.

    Parameters
    ----------
    share : float
        In (0, 1]; the number of instances is rounded up.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, batch: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
        """(n, d), (n,) ascending -> the drawn rows, in their order, and their bags."""
        if not self.training or self.share == 1:
            return x, batch
        where = "cpu" if self.generator is None else self.generator.device
        rows, start = [], 0
        for size in torch.bincount(batch, minlength=n_bags).tolist():
            order = torch.randperm(size, generator=self.generator, device=where)
            kept = order[: math.ceil(self.share * size)].sort().values
            rows.append(kept.to(x.device) + start)
            start += size
        drawn = torch.cat(rows)
        return x[drawn], batch[drawn]

    def extra_repr(self) -> str:
        return f"share={self.share}"


def mark_highest_in_bags(values: Tensor, batch: Tensor, n_bags: int, share: float) -> Tensor:
    """Mark the largest values of each bag: a share of them, at least one.

    (n,), (n,) ascending -> (n,) bool
    """
    marks = [mark_highest(part, share) for part in segment_split(values, batch, n_bags)]
    return torch.cat(marks)


def mark_highest(values: Tensor, share: float) -> Tensor:
    """Mark the largest values along the last axis: a share of them, at least one."""
    k = max(1, int(share * values.shape[-1]))
    top = values.topk(k, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, top, True)
