"""Patch features in blocks of rows, so that a large slide need not be in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .precision import mixed_linear


class Blocks:
    """A matrix in consecutive blocks of rows, which are read again in each iteration.

    Parameters
    ----------
    shape : (int, int)
        Of the matrix.
    dtype : torch.dtype
        Of the blocks that are given out.
    read : callable
        Takes no arguments and returns the blocks in order, as float32 arrays.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: torch.dtype,
        read: Callable[[], Iterable[NDArray]],
    ) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (as_tensor(block).to(self.dtype) for block in self._read())


def as_tensor(values: NDArray) -> Tensor:
    """Tensor that shares the memory of an array, or holds a copy of a read-only array."""
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def materialize(x: Tensor | Blocks) -> Tensor:
    """All rows in memory, for operations that cannot work on one block after another."""
    if not isinstance(x, Blocks):
        return x
    blocks = list(x)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def iter_blocks(x: Tensor | Blocks) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, each with its position in the matrix; a tensor is one block."""
    start = 0
    for block in x if isinstance(x, Blocks) else [x]:
        yield slice(start, start + len(block)), block
        start += len(block)


def embed(x: Tensor | Blocks, linear: nn.Linear) -> Tensor:
    """Apply a linear layer in the type of `x`, block by block; the result is float32.

    (n, in_features) -> (n, out_features)
    """
    parts = [mixed_linear(block, linear) for _, block in iter_blocks(x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class PatchEmbedding(nn.Sequential):
    """Layers applied to patch features; the first one is linear and applied by `embed`."""

    def __init__(self, linear: nn.Linear, *others: nn.Module) -> None:
        super().__init__(linear, *others)

    def forward(self, x: Tensor | Blocks) -> Tensor:
        linear, *others = self
        h = embed(x, cast(nn.Linear, linear))
        for layer in others:
            h = layer(h)
        return h
