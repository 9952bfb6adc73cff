"""Bags as flat graph batches, no padding and no masks; which bags form a batch; prefetching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..data.arrays import BagArrays
from ..data.bag import Bag
from ..data.graph import build_edges
from ..data.sequence import BagSequence
from ..data.validation import check_n_features
from ..exceptions import BagError
from ..nn.blocks import Blocks, as_tensor, materialize
from ..nn.edges import Edges


@dataclass(frozen=True)
class GraphSpec:
    """How bags become graphs; see :func:`sk_momkd.data.graph.build_edges`."""

    graph: str = "auto"
    n_neighbors: int = 8
    edge_flow: str = "neighbors"


@dataclass(frozen=True)
class FlatBatch:
    """Bags side by side; n instances, B bags, P of them with omics.

    Attributes
    ----------
    x : Tensor of shape (n, n_features), or Blocks of it
    edges : Edges
        Of all graphs, none between two bags.
    batch : int64 Tensor of shape (n,)
        Bag of each instance, ascending.
    n_bags : int
    index : int64 Tensor of shape (B,)
        Place of each bag in the dataset.
    y : int64 Tensor of shape (B,)
    paired : bool Tensor of shape (B,)
    omics : Tensor of shape (P, n_genes) or None
        Rows of the paired bags; the others add no row, they are not filled with zeros.
    teacher : Tensor of shape (P, n_classes) or None
        Soft labels of the paired bags, where an omics teacher gives them.
    """

    x: Tensor | Blocks
    edges: Edges
    batch: Tensor
    n_bags: int
    index: Tensor
    y: Tensor
    paired: Tensor
    omics: Tensor | None = None
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return self.n_bags

    def to(self, device: str | torch.device) -> Self:
        """The same batch on another device; itself where it is there already."""
        if self.x.device == torch.device(device):
            return self
        names = ("edges", "batch", "index", "y", "paired")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        for name in ("omics", "teacher"):
            rows = getattr(self, name)
            moved[name] = None if rows is None else rows.to(device)
        return replace(self, x=materialize(self.x).to(device), **moved)


def read_graph(bag: Bag, name: str, spec: GraphSpec, n_features: int) -> tuple[Tensor, Edges]:
    """Read, check and connect one bag.

    Raises
    ------
    BagError
        Naming the bag, if it is unusable or has another width than the model.
    """
    arrays = bag.load(name)
    check_n_features(arrays.features.shape[1], name, n_features, "the model")
    return as_tensor(arrays.features), _connect(arrays, name, spec)


@contextmanager
def open_graph(
    bag: Bag, name: str, spec: GraphSpec, n_features: int, dtype: torch.dtype, *, block_size: int
) -> Iterator[tuple[Tensor | Blocks, Edges]]:
    """Likewise, but a bag of more than `block_size` instances that lies in a file stays there.

    Its features come in blocks while this is open.
    """
    with bag.opened(block_size, name) as opened:
        if opened is None or spec.graph == "features":
            x, edges = read_graph(bag, name, spec, n_features)
            yield x.to(dtype), edges
        else:
            check_n_features(opened.shape[1], name, n_features, "the model")
            edges = _connect(opened.frame, name, spec)
            blocks = Blocks(opened.shape, dtype, opened.read)
            yield blocks if len(blocks) > block_size else materialize(blocks), edges


def _connect(arrays: BagArrays, name: str, spec: GraphSpec) -> Edges:
    try:
        edges = build_edges(
            arrays, graph=spec.graph, n_neighbors=spec.n_neighbors, edge_flow=spec.edge_flow
        )
    except BagError as error:
        raise BagError(f"{name}: {error}") from None
    return Edges.of(torch.from_numpy(edges), len(arrays.features))


def single_bag_batch(
    x: Tensor | Blocks,
    edges: Edges,
    *,
    index: int = 0,
    y: int = 0,
    paired: bool = False,
    omics: Tensor | None = None,
    teacher: Tensor | None = None,
) -> FlatBatch:
    """A batch of one bag; its features are not copied."""
    return FlatBatch(
        x=x,
        edges=edges,
        batch=torch.zeros(len(x), dtype=torch.int64),
        n_bags=1,
        index=torch.tensor([index]),
        y=torch.tensor([y]),
        paired=torch.tensor([paired]),
        omics=omics,
        teacher=teacher,
    )


class BagDataset(Dataset):
    """Training items: graph, label and, where the bag has one, its omics vector.

    Every bag is read and checked once on construction, so that a broken slide is found before
    training begins. All graphs stay in memory, and as many features as fit into `cache_bytes`.

    Parameters
    ----------
    bags : BagSequence
    y : int ndarray of shape (n_bags,)
    spec : GraphSpec
    n_features : int
    omics : float32 ndarray of shape (n_bags, n_genes), optional
    paired : bool ndarray of shape (n_bags,), optional
        Which rows of `omics` and `teacher` mean anything; by default none.
    teacher : float32 ndarray of shape (n_bags, n_classes), optional
        Soft labels.
    dtype : torch.dtype, default=float32
        In which the features are kept and given out.
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
        teacher: NDArray | None = None,
        dtype: torch.dtype = torch.float32,
        cache_bytes: int = 2**30,
    ) -> None:
        self.bags, self.y, self.omics, self.teacher = bags, y, omics, teacher
        self.paired = np.zeros(len(bags), dtype=bool) if paired is None else paired
        self.spec, self.n_features, self.dtype = spec, n_features, dtype
        self.sizes = np.zeros(len(bags), dtype=int)
        self._edges: list[Edges] = []
        self._features: dict[int, Tensor] = {}
        for i in range(len(bags)):
            x, edges = read_graph(bags[i], bags.name(i), spec, n_features)
            self.sizes[i] = len(x)
            self._edges.append(edges)
            x = x.to(dtype)
            if x.nbytes <= cache_bytes:
                cache_bytes -= x.nbytes
                self._features[i] = x

    @property
    def in_memory(self) -> bool:
        """Whether no bag is read again."""
        return len(self._features) == len(self.bags)

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, i: int) -> FlatBatch:
        return self.batch([i])

    def batch(self, places: Sequence[int]) -> FlatBatch:
        """The bags at these places, side by side; a single one is not copied."""
        x = [self._features[i] if i in self._features else self._read(i) for i in places]
        chosen = np.asarray(places)
        known = chosen[self.paired[chosen]]
        return FlatBatch(
            x=x[0] if len(x) == 1 else torch.cat(x),
            edges=Edges.join([self._edges[i] for i in places]),
            batch=torch.arange(len(x)).repeat_interleave(torch.from_numpy(self.sizes[chosen])),
            n_bags=len(x),
            index=torch.from_numpy(chosen),
            y=torch.from_numpy(self.y[chosen]),
            paired=torch.from_numpy(self.paired[chosen]),
            omics=None if self.omics is None else torch.from_numpy(self.omics[known]),
            teacher=None if self.teacher is None else torch.from_numpy(self.teacher[known]),
        )

    def _read(self, i: int) -> Tensor:
        return as_tensor(self.bags[i].load(self.bags.name(i)).features).to(self.dtype)


def forward(module: torch.nn.Module, batch: FlatBatch, *, training: bool) -> Any:
    """Call `module` on a batch; labels and omics go in only while training.

    A module that ``needs_index`` is told the bags' places in the training set, too. One that
    ``reads_omics`` (a teacher, never a model that predicts) has omics at validation as well.
    """
    known: dict[str, Any] = {"y": batch.y} if training else {}
    if training or getattr(module, "reads_omics", False):
        known["paired"] = batch.paired
        if batch.omics is not None:
            known["omics"] = batch.omics
    if training and batch.teacher is not None:
        known["teacher"] = batch.teacher
    if training and getattr(module, "needs_index", False):
        known["index"] = batch.index
    return module(batch.x, batch.edges, batch.batch, batch.n_bags, **known)


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
