"""Features that arrive in blocks, and the first linear layer that reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .precision import linear_as, wide


class Blocks:
    """Rows of a matrix in consecutive blocks, read anew in each pass.

    Parameters
    ----------
    shape : (int, int)
    dtype : torch.dtype
        Of the blocks that are given out.
    read : callable
        Without arguments; gives the blocks in order, as float32 arrays.
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

    def tensor(self) -> Tensor:
        """All rows at once."""
        blocks = list(self)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def as_tensor(values: NDArray) -> Tensor:
    """The array's own memory where torch may write to it, else a copy."""
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def whole(x: Tensor | Blocks) -> Tensor:
    """All rows at once, for what cannot take them one block after another."""
    return x.tensor() if isinstance(x, Blocks) else x


def by_blocks(x: Tensor | Blocks) -> Iterator[tuple[slice, Tensor]]:
    """The rows block by block, each with its place; a tensor is one block."""
    start = 0
    for block in x if isinstance(x, Blocks) else [x]:
        yield slice(start, start + len(block)), block
        start += len(block)


def embed(x: Tensor | Blocks, linear: nn.Linear) -> Tensor:
    """`linear` in the type of `x`, then float32; block by block where `x` comes in blocks.

    (n, in_features) -> (n, out_features)
    """
    parts = [wide(linear_as(block, linear)) for _, block in by_blocks(x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Embedding(nn.Sequential):
    """Layers on patches, the first of them linear; see `embed`."""

    def __init__(self, linear: nn.Linear, *others: nn.Module) -> None:
        super().__init__(linear, *others)

    def forward(self, x: Tensor | Blocks) -> Tensor:
        linear, *others = self
        h = embed(x, cast(nn.Linear, linear))
        for layer in others:
            h = layer(h)
        return h
