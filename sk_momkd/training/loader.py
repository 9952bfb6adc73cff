"""Which bags stand together in a batch, and reading them ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from .batches import BagDataset, FlatBatch


class BagLoader:
    """Batches of a dataset; while one is worked on, the next is read.

    Parameters
    ----------
    dataset : BagDataset
    batches : iterable of lists of int
        Which bags stand together, anew for each epoch.
    """

    def __init__(self, dataset: BagDataset, batches: Any) -> None:
        self.dataset, self.batches = dataset, batches

    def __iter__(self) -> Iterator[tuple[FlatBatch, Tensor]]:
        if self.dataset.in_memory:
            yield from map(self._batch, self.batches)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="sk_momkd-read") as reader:
            upcoming: Future | None = None
            for indices in self.batches:
                current, upcoming = upcoming, reader.submit(self._batch, indices)
                if current is not None:
                    yield current.result()
            if upcoming is not None:
                yield upcoming.result()

    def __len__(self) -> int:
        return len(self.batches)

    def _batch(self, places: list[int]) -> tuple[FlatBatch, Tensor]:
        batch = self.dataset.batch(places)
        return batch, batch.y


class InstanceBudget(Sampler):
    """Consecutive bags, as many per batch as stay within a number of instances.

    Parameters
    ----------
    sizes : int ndarray of shape (n_bags,)
    budget : int, default=8192
        A larger bag gets a batch of its own.
    """

    def __init__(self, sizes: NDArray, budget: int = 8192) -> None:
        self.batches: list[list[int]] = [[]]
        room = budget
        for i, size in enumerate(sizes):
            if size > room and self.batches[-1]:
                self.batches.append([])
                room = budget
            self.batches[-1].append(i)
            room -= size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def balanced_weights(y: NDArray) -> NDArray:
    """Sampling weight of each bag, one over the size of its class."""
    return 1.0 / np.bincount(y)[y]
