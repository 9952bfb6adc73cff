"""Bags cut at random into nearly equal chunks (pseudo-bags)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .dropout import Stochastic


class Chunks(NamedTuple):
    """One cut of a batch of n instances and B bags into C chunks.

    Attributes
    ----------
    of_instance : Tensor of shape (n,)
        Chunk of each instance.
    bag : Tensor of shape (C,)
        Bag of each chunk, ascending.
    """

    of_instance: Tensor
    bag: Tensor


class RandomSplit(Stochastic):
    """Shuffle each bag and cut it into `n_chunks` chunks whose sizes differ by at most one.

    In training there is one cut, drawn from `generator`. At inference there are `n_shuffles`,
    drawn from a seed made of the bag's number of instances: the same bag is always cut in the
    same way, whatever stands beside it. A bag of fewer instances than `n_chunks` gets one chunk
    per instance.

    Parameters
    ----------
    n_chunks : int
    n_shuffles : int
        Cuts at inference.
    seed : int, default=0
        Another seed, other cuts at inference.
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
