"""Feature rows that arrive in blocks, for slides that are too large to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from numpy.typing import NDArray
from torch import Tensor


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
