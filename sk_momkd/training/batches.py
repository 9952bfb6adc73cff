"""From bags to batches: bags become graphs, and graphs one flat batch without padding or masks.

Top to bottom: the graph of a bag, the batch, the training set, which bags form a batch, the loader
that reads ahead, and the call of a module on a batch.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    Dataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from ..bag_warnings import warns_together
from ..data.arrays import BagArrays, check_n_features
from ..data.bag import Bag
from ..data.graph import build_edges
from ..data.neighbors import row_keys
from ..data.sequence import BagSequence
from ..data.value_digest import digest
from ..exceptions import BagError
from ..nn.blocks import Blocks, as_tensor, materialize
from ..nn.edges import Edges
from ..nn.segment import keep_sizes, segment_sizes
from .feature_summary import FeatureSummary

_FEW_EDGES = 1024
_MOST_READERS = 4


@dataclass(frozen=True)
class GraphSpec:
    """Parameters of the graph; see :func:`sk_momkd.data.graph.build_edges`."""

    graph: str = "auto"
    n_neighbors: int = 8
    edge_flow: str = "neighbors"


def read_graph(bag: Bag, name: str, spec: GraphSpec, n_features: int) -> tuple[Tensor, Edges]:
    """Read, check and connect one bag.

    Raises
    ------
    BagError
        Naming the bag, if it is unusable or has another width than the model.
    """
    arrays = bag.load(name)
    check_n_features(arrays.features.shape[1], name, n_features)
    return as_tensor(arrays.features), _connect(arrays, name, spec)


@warns_together
def _graphs(bags: BagSequence, spec: GraphSpec, n_features: int) -> Generator[tuple[Tensor, Edges]]:
    for i in range(len(bags)):
        yield read_graph(bags[i], bags.name(i), spec, n_features)


@contextmanager
def open_graph(
    bag: Bag, name: str, spec: GraphSpec, n_features: int, dtype: torch.dtype, *, block_size: int
) -> Iterator[tuple[Tensor | Blocks, Edges]]:
    """Read, check and connect one bag; a bag that is larger than `block_size` stays in its file.

    Inside the context the features of such a bag are `Blocks`.
    """
    with bag.opened(block_size, name) as opened:
        if opened is None or spec.graph == "features":
            x, edges = read_graph(bag, name, spec, n_features)
            yield x.to(dtype), edges
        else:
            check_n_features(opened.shape[1], name, n_features)
            edges = _connect(opened.frame, name, spec, lambda: row_keys(opened.read()))
            blocks = Blocks(opened.shape, dtype, opened.read)
            yield blocks if len(blocks) > block_size else materialize(blocks), edges


def _connect(
    arrays: BagArrays, name: str, spec: GraphSpec, keys: Callable[[], NDArray] | None = None
) -> Edges:
    try:
        edges = build_edges(
            arrays,
            graph=spec.graph,
            n_neighbors=spec.n_neighbors,
            edge_flow=spec.edge_flow,
            keys=keys,
        )
    except BagError as error:
        raise BagError(f"{name}: {error}") from None
    if edges.size > _FEW_EDGES:
        return Edges.of(torch.from_numpy(edges), len(arrays.features))
    return _edges_of_few(edges.tobytes(), edges.dtype.str, len(arrays.features))


@lru_cache(maxsize=1024)
def _edges_of_few(edge_index: bytes, dtype: str, n_nodes: int) -> Edges:
    """Edges of a small graph, which is that of many bags: in most, all patches are neighbours."""
    edges = np.frombuffer(edge_index, dtype).reshape(2, -1)
    return Edges.of(torch.from_numpy(edges.copy()), n_nodes)


def largest_value(x: Tensor) -> float:
    """Largest absolute value."""
    low, high = torch.aminmax(x)
    return float(torch.maximum(-low, high))


class LossWeights(NamedTuple):
    """Weights of bags in the loss.

    Attributes
    ----------
    bags : float32 ndarray of shape (n_bags,)
        In terms that every bag has.
    paired : float32 ndarray of shape (n_bags,)
        In terms of the bags with omics.
    """

    bags: NDArray
    paired: NDArray


@dataclass(frozen=True)
class FlatBatch:
    """Batch of B bags with n instances in total; P of the bags have omics.

    Attributes
    ----------
    x : Tensor of shape (n, n_features), or Blocks of it
    edges : Edges
        Of all graphs; there are none between two bags.
    batch : int64 Tensor of shape (n,)
        Index of each instance's bag, ascending.
    n_bags : int
    index : int64 Tensor of shape (B,)
        Index of each bag in the dataset.
    y : int64 Tensor of shape (B,)
    paired : bool Tensor of shape (B,)
    omics : Tensor of shape (P, n_genes) or None
        A row for each bag with omics, and none for the others.
    teacher : Tensor of shape (P, n_classes) or None
        Soft labels of an omics teacher, for the same bags.
    weight : Tensor of shape (B,) or None
        Weights of the bags in the loss; None where all are 1.
    paired_weight : Tensor of shape (P,) or None
        Weights in loss terms of the bags with omics.
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
    weight: Tensor | None = None
    paired_weight: Tensor | None = None

    def __len__(self) -> int:
        return self.n_bags

    def to(self, device: str | torch.device) -> Self:
        """Batch on a device; the batch itself if it is there already."""
        if _same_device(self.x.device, torch.device(device)):
            return self
        return self.map(lambda t: t.to(device, non_blocking=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Batch with a function applied to each tensor, such as a move to a device."""
        names = ("index", "y", "paired", "omics", "teacher", "weight", "paired_weight")
        found = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {k: t if t is None else function(t) for k, t in found.items()}
        return replace(
            self,
            x=function(materialize(self.x)),
            edges=self.edges.map(function),
            batch=keep_sizes(function(self.batch), segment_sizes(self.batch, self.n_bags)),
            **moved,
        )


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Whether they are the same; "cuda" is whatever GPU is current."""
    return one.type == other.type and (other.index is None or one.index == other.index)


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
    """Batch of a single bag, whose features are not copied."""
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


@dataclass
class Reading:
    """Bytes of features that were read from files, and seconds that training waited for them."""

    n_bytes: int = 0
    seconds: float = 0.0


class BagDataset(Dataset):
    """Graphs, labels and omics vectors of the bags.

    Every bag is read and checked on construction, so that a broken slide is found before training
    begins. All graphs stay in memory, and as many features as fit into `cache_bytes`; the others
    are read in every epoch, and what must not change meanwhile is not checked again.

    Parameters
    ----------
    bags : BagSequence
    y : int ndarray of shape (n_bags,)
    spec : GraphSpec
    n_features : int
    omics : float32 ndarray of shape (n_bags, n_genes), optional
    paired : bool ndarray of shape (n_bags,), optional
        Which rows of `omics` and `teacher` are in use; by default none.
    teacher : float32 ndarray of shape (n_bags, n_classes), optional
        Soft labels.
    weights : LossWeights, optional
        Weights in the loss; by default all are 1.
    dtype : torch.dtype, default=float32
        Of the features.
    cache_bytes : int, default=1 GiB
    sum_contents : bool, default=False
    on_read : callable, optional
        Called with the features of each bag, in order, as they were read.

    Attributes
    ----------
    content_sums : list of str
        With `sum_contents`, a digest of the features and the graph of each bag.
    means : float32 ndarray of shape (n_bags, n_features)
        Mean patch of each bag, of the features as they are kept, in `dtype`.
    spreads : float32 ndarray of shape (n_bags, n_features)
        Standard deviation of the patches of each bag, of the same features.
    mean_patch : float32 ndarray of shape (n_features,)
        Mean over the bags of their mean patches.
    summary : FeatureSummary or None
        Of the features as they are kept, in `dtype`.
    cache_bytes_left : int
        What the features in memory leave of `cache_bytes`.
    reading : Reading
        What was read since it was last reset.
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
        weights: LossWeights | None = None,
        dtype: torch.dtype = torch.float32,
        cache_bytes: int = 2**30,
        sum_contents: bool = False,
        on_read: Callable[[NDArray], None] | None = None,
    ) -> None:
        self.bags, self.y = bags, y
        self.spec, self.n_features, self.dtype = spec, n_features, dtype
        self.sizes = np.zeros(len(bags), dtype=int)
        self.largest = np.zeros(len(bags), dtype=np.float32)  # absolute value of a feature
        self.content_sums: list[str] = []
        self._edges: list[Edges] = []
        self._features: dict[int, Tensor] = {}
        self._singles: dict[int, FlatBatch] = {}
        self.add_targets(omics=omics, paired=paired, teacher=teacher, weights=weights)
        self.reading = Reading()
        total = torch.zeros(n_features, dtype=torch.float64)
        self.means = np.empty((len(bags), n_features), dtype=np.float32)
        self.spreads = np.empty_like(self.means)
        within = torch.zeros(n_features, dtype=torch.float64)
        for i, (x, edges) in enumerate(_graphs(bags, spec, n_features)):
            self.sizes[i], self.largest[i] = len(x), largest_value(x)
            if on_read is not None:
                on_read(x.numpy())
            self._edges.append(edges)
            if sum_contents:
                graph = (edges.in_offsets, edges.sender)
                self.content_sums.append(digest(*(part.numpy() for part in (x, *graph))))
            total += x.mean(dim=0)
            x = x.to(dtype)
            variance, mean = torch.var_mean(x.float(), dim=0, correction=0)
            self.means[i], self.spreads[i] = mean.numpy(), variance.sqrt().numpy()
            within += variance
            if x.nbytes <= cache_bytes:
                cache_bytes -= x.nbytes
                self._features[i] = x
        self.cache_bytes_left = cache_bytes
        self.mean_patch = (total / max(len(bags), 1)).float().numpy()
        within /= max(len(bags), 1)
        self.summary = FeatureSummary.of(self.means, within.numpy(), self.sizes)

    def add_targets(
        self,
        *,
        omics: NDArray | None = None,
        paired: NDArray | None = None,
        teacher: NDArray | None = None,
        weights: LossWeights | None = None,
    ) -> None:
        """Set what the bags are trained with beside their labels, as on construction."""
        self.omics, self.teacher, self.weights = omics, teacher, weights
        self.paired = np.zeros(len(self.bags), dtype=bool) if paired is None else paired
        self._singles.clear()

    def with_and_without_graph(self) -> tuple[list[str], list[str]]:
        """Names of the bags of several patches with edges between them, and of those without."""
        found: tuple[list[str], list[str]] = ([], [])
        for i, (edges, n) in enumerate(zip(self._edges, self.sizes.tolist(), strict=True)):
            if n > 1:
                found[len(edges.sender) == n].append(self.bags.name(i))
        return found

    @property
    def in_memory(self) -> bool:
        """Whether the features of all bags are in memory."""
        return len(self._features) == len(self.bags)

    @property
    def n_readers(self) -> int:
        """Number of threads that read ahead; one where code of users transforms what is read."""
        transformed = any(bag.is_lazy and bag.source is None for bag in self.bags)
        return 1 if transformed else min(_MOST_READERS, os.cpu_count() or 1)

    def bytes_to_read(self, indices: Sequence[int]) -> int:
        """Bytes of the features, as float32, that a batch of these bags reads."""
        n = sum(int(self.sizes[i]) for i in indices if i not in self._features)
        return n * self.n_features * 4

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, i: int) -> FlatBatch:
        return self.batch([i])

    def batch(self, indices: Sequence[int]) -> FlatBatch:
        """Batch of the bags with these indices; the features of a single bag are not copied."""
        (first, *others) = indices
        if others or first not in self._features:
            return self._join(indices)
        if first not in self._singles:
            self._singles[first] = self._join(indices)
        return self._singles[first]

    def _join(self, indices: Sequence[int]) -> FlatBatch:
        x = [self._features[i] if i in self._features else self._read(i) for i in indices]
        chosen = np.asarray(indices)
        known = chosen[self.paired[chosen]]
        return FlatBatch(
            x=x[0] if len(x) == 1 else torch.cat(x),
            edges=Edges.join([self._edges[i] for i in indices]),
            batch=keep_sizes(
                torch.from_numpy(np.repeat(np.arange(len(x)), self.sizes[chosen])),
                self.sizes[chosen].tolist(),
            ),
            n_bags=len(x),
            index=torch.from_numpy(chosen),
            y=torch.from_numpy(self.y[chosen]),
            paired=torch.from_numpy(self.paired[chosen]),
            omics=None if self.omics is None else torch.from_numpy(self.omics[known]),
            teacher=None if self.teacher is None else torch.from_numpy(self.teacher[known]),
            weight=None if self.weights is None else torch.from_numpy(self.weights.bags[chosen]),
            paired_weight=None
            if self.weights is None
            else torch.from_numpy(self.weights.paired[known]),
        )

    def _read(self, i: int) -> Tensor:
        name = self.bags.name(i)
        features = self.bags[i].load(name, again=True).features
        expected = (self.sizes[i], self.n_features)
        if features.shape != expected:
            raise BagError(
                f"{name} has changed since it was first read in this fit: it had features of shape "
                f"{tuple(map(int, expected))}, and has {features.shape} now. Its graph is of the "
                "former; fit again when what writes it is done."
            )
        return as_tensor(features).to(self.dtype)


def draw_batches(
    y: NDArray, sampler: str, batch_size: int, generator: torch.Generator
) -> BatchSampler:
    """Batches of an epoch: "balanced" draws every class equally often, "shuffle" all bags once."""
    order: Sampler = RandomSampler(y, generator=generator)
    if sampler == "balanced":
        weights = compute_sample_weight("balanced", y).tolist()
        order = WeightedRandomSampler(weights, len(y), generator=generator)
    return BatchSampler(order, batch_size, drop_last=False)


def instance_budget(device: str) -> int:
    """Instances in a batch of the validation part: what fills the caches of a CPU, or a GPU."""
    return 8192 if device == "cpu" else 2**17


def batches_within(sizes: NDArray, budget: int = 8192) -> list[list[int]]:
    """Batches of consecutive bags, as many as have at most `budget` instances together.

    A larger bag is a batch by itself. `sizes` are the bags' numbers of instances, (n_bags,).
    """
    batches: list[list[int]] = [[]]
    remaining = budget
    for i, size in enumerate(sizes):
        if size > remaining and batches[-1]:
            batches.append([])
            remaining = budget
        batches[-1].append(i)
        remaining -= size
    return batches


class BagLoader:
    """Batches of a dataset; the next batches are read while the current one is in use.

    Parameters
    ----------
    dataset : BagDataset
    batches : iterable of lists of int
        Indices of the bags in each batch; iterated once per epoch.
    device : str, default="cpu"
        For a GPU, batches are copied to it from pinned memory while the one before is in use.
    """

    def __init__(self, dataset: BagDataset, batches: Any, device: str = "cpu") -> None:
        self.dataset, self.batches = dataset, batches
        self.device = torch.device(device)

    def __iter__(self) -> Iterator[tuple[FlatBatch, Tensor]]:
        if self.device.type == "cuda":
            yield from _copied_ahead(self._read_ahead(), self.device)
        elif self.dataset.in_memory:
            yield from map(self._batch, self.batches)
        else:
            yield from self._read_ahead()

    def _read_ahead(self) -> Iterator[tuple[FlatBatch, Tensor]]:
        n_readers = self.dataset.n_readers
        with ThreadPoolExecutor(n_readers, thread_name_prefix="sk_momkd-read") as readers:
            upcoming: deque[Future] = deque()
            for indices in self.batches:
                self.dataset.reading.n_bytes += self.dataset.bytes_to_read(indices)
                upcoming.append(readers.submit(self._batch, indices))
                if len(upcoming) > n_readers:
                    yield self._awaited(upcoming.popleft())
            while upcoming:
                yield self._awaited(upcoming.popleft())

    def _awaited(self, batch: Future) -> tuple[FlatBatch, Tensor]:
        start = time.perf_counter()
        read = batch.result()
        self.dataset.reading.seconds += time.perf_counter() - start
        return read

    def __len__(self) -> int:
        return len(self.batches)

    def _batch(self, indices: list[int]) -> tuple[FlatBatch, Tensor]:
        batch = self.dataset.batch(indices)
        if self.device.type == "cuda":
            batch = batch.map(Tensor.pin_memory)
        return batch, batch.y


def _copied_ahead(
    batches: Iterator[tuple[FlatBatch, Tensor]], device: torch.device
) -> Iterator[tuple[FlatBatch, Tensor]]:
    """Batches on a GPU, each copied by its own stream while the one before is in use."""
    copying, upcoming = torch.cuda.Stream(device), None
    for batch, y in batches:
        with torch.cuda.stream(copying):
            copied = batch.to(device)
        current, upcoming = upcoming, (copied, y, copying.record_event())
        if current is not None:
            yield _arrived(*current, device)
    if upcoming is not None:
        yield _arrived(*upcoming, device)


def _arrived(
    batch: FlatBatch, y: Tensor, copied: torch.cuda.Event, device: torch.device
) -> tuple[FlatBatch, Tensor]:
    """The batch, for whose copy alone the computation waits, and not for that of the next one.

    Its memory is not reused before the computation ends.
    """
    computing = torch.cuda.current_stream(device)
    computing.wait_event(copied)

    def in_use(tensor: Tensor) -> Tensor:
        tensor.record_stream(computing)
        return tensor

    return batch.map(in_use), y


def forward(module: torch.nn.Module, batch: FlatBatch, *, training: bool) -> Any:
    """Call `module` on a batch; labels and omics are passed in training only.

    A module with ``needs_index`` also gets the bags' indices in the training set. A module with
    ``reads_omics``, such as a teacher, gets omics at validation, too.
    """
    known: dict[str, Any] = {"y": batch.y} if training else {}
    if training or getattr(module, "reads_omics", False):
        known["paired"] = batch.paired
        if batch.omics is not None:
            known["omics"] = batch.omics
    if training and getattr(module, "needs_index", False):
        known["index"] = batch.index
    return module(batch.x, batch.edges, batch.batch, batch.n_bags, **known)
