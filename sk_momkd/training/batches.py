"""Bags as flat graph batches: no padding, no masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torch_geometric.data import Batch, Data

from ..data.bag import Bag
from ..data.graph import build_edges
from ..data.sequence import BagSequence
from ..exceptions import BagError


@dataclass(frozen=True)
class GraphSpec:
    """How bags become graphs; see :func:`sk_momkd.data.graph.build_edges`."""

    graph: str = "auto"
    n_neighbors: int = 8
    edge_flow: str = "neighbors"


def bag_to_graph(bag: Bag, name: str, spec: GraphSpec, n_features: int) -> Data:
    """Read, check and connect one bag.

    Raises
    ------
    BagError
        Naming the bag, if it is unusable or has another width than the model.
    """
    arrays = bag.load(name)
    if arrays.features.shape[1] != n_features:
        raise BagError(
            f"X has {arrays.features.shape[1]} features in {name}, but the model is expecting "
            f"{n_features} features as input. Extract all slides with one encoder."
        )
    try:
        edges = build_edges(
            arrays, graph=spec.graph, n_neighbors=spec.n_neighbors, edge_flow=spec.edge_flow
        )
    except BagError as error:
        raise BagError(f"{name}: {error}") from None
    features = arrays.features if arrays.features.flags.writeable else arrays.features.copy()
    return Data(x=torch.from_numpy(features), edge_index=torch.from_numpy(edges))


class BagDataset(Dataset):
    """Training items: graph, label and, where the bag has one, its omics vector.

    Every bag is read and checked once on construction, so that a broken slide is found before
    training begins. As many as fit into `cache_bytes` stay in memory.

    Parameters
    ----------
    bags : BagSequence
    y : int ndarray of shape (n_bags,)
    spec : GraphSpec
    n_features : int
    omics : float32 ndarray of shape (n_bags, n_genes), optional
    paired : bool ndarray of shape (n_bags,), optional
        Which rows of `omics` mean anything; by default none.
    cache_bytes : int, default=1 GiB
    """

    def __init__(
        self,
        bags: BagSequence,
        y: NDArray,
        spec: GraphSpec,
        n_features: int,
        *,
        omics: NDArray | None = None,
        paired: NDArray | None = None,
        cache_bytes: int = 2**30,
    ) -> None:
        self.bags, self.y, self.omics = bags, y, omics
        self.paired = np.zeros(len(bags), dtype=bool) if paired is None else paired
        self.spec, self.n_features = spec, n_features
        self.sizes = np.zeros(len(bags), dtype=int)
        self._cache: dict[int, Data] = {}
        for i in range(len(bags)):
            graph = self._read(i)
            self.sizes[i] = len(graph.x)
            cache_bytes -= graph.x.nbytes + graph.edge_index.nbytes
            if cache_bytes > 0:
                self._cache[i] = graph

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, i: int) -> Data:
        graph = self._cache[i] if i in self._cache else self._read(i)
        item = Data(x=graph.x, edge_index=graph.edge_index, y=int(self.y[i]))
        item.paired = bool(self.paired[i])
        if self.omics is not None:  # an unpaired bag adds no row, it is not filled with zeros
            item.omics = torch.from_numpy(self.omics[i : i + 1][self.paired[i : i + 1]])
        return item

    def _read(self, i: int) -> Data:
        return bag_to_graph(self.bags[i], self.bags.name(i), self.spec, self.n_features)


def collate(items: Sequence[Data]) -> tuple[Batch, Tensor]:
    """Items to one flat batch and its labels."""
    batch = Batch.from_data_list(list(items))
    return batch, batch.y


def forward(module: torch.nn.Module, batch: Batch, *, training: bool) -> Any:
    """Call `module` on a batch; labels and omics go in only while training."""
    known = {"y": batch.y, "paired": batch.paired} if training else {}
    if training and "omics" in batch:
        known["omics"] = batch.omics
    return module(batch.x, batch.edge_index, batch.batch, batch.num_graphs, **known)


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
