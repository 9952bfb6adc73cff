"""The edges of a graph in two orders, by receiver and by sender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Degrees(NamedTuple):
    """Nodes in runs of the same number of edges, which are known on the CPU.

    Attributes
    ----------
    order : int64 Tensor of shape (n,) or None
        The nodes by degree, those of the same degree in their order; None if all have the same.
    runs : tuple of (int, int, int)
        First and last (excluded) place in `order`, and the degree of these nodes.
    """

    order: Tensor | None
    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, offsets: Tensor) -> Degrees:
        """Of the nodes whose edges are ``offsets[i]:offsets[i + 1]``."""
        degree = offsets.diff().cpu().numpy()
        if len(degree) and (degree == degree[0]).all():
            return cls(None, ((0, len(degree), int(degree[0])),))
        order = degree.argsort(kind="stable")
        found, first = np.unique(degree[order], return_index=True)
        ends = [*first[1:].tolist(), len(degree)]
        runs = tuple(zip(first.tolist(), ends, found.tolist(), strict=True))
        return cls(torch.from_numpy(order).to(offsets.device), runs)

    def map(self, function: Callable[[Tensor], Tensor]) -> Degrees:
        """The same with a function applied to the tensor, such as a move to another device."""
        return self if self.order is None else Degrees(function(self.order), self.runs)


@dataclass(frozen=True)
class Edges:
    """Edges of a graph with one self loop per node, in compressed sparse rows.

    Duplicate edges are kept; duplicate self loops are not.

    Attributes
    ----------
    in_offsets : int32 Tensor of shape (n + 1,)
        By receiver: edges ``in_offsets[i]:in_offsets[i + 1]`` end in node i.
    sender : int32 Tensor of shape (E,)
        By receiver: the node in which each edge begins.
    out_offsets : int32 Tensor of shape (n + 1,)
        By sender: edges ``out_offsets[j]:out_offsets[j + 1]`` begin in node j.
    receiver : int32 Tensor of shape (E,)
        By sender: the node in which each edge ends.
    position : int32 Tensor of shape (E,)
        By sender: the index of each edge in the order by receiver.
    """

    in_offsets: Tensor
    sender: Tensor
    out_offsets: Tensor
    receiver: Tensor
    position: Tensor

    @classmethod
    def of(cls, edge_index: Tensor | Edges, n_nodes: int) -> Edges:
        """Sort the edges of ``edge_index`` (2, n_edges), which go from row 0 to row 1.

        Raises
        ------
        ValueError
            If an edge names a node that the graph has not; compiled loops would read beyond
            the features.
        """
        if isinstance(edge_index, Edges):
            if edge_index.n_nodes != n_nodes:
                raise ValueError(
                    f"The edges are of a graph of {edge_index.n_nodes} nodes, the features of "
                    f"{n_nodes}."
                )
            return edge_index
        if edge_index.numel():
            lowest, highest = (int(node) for node in edge_index.aminmax())
            if lowest < 0 or highest >= n_nodes:
                raise ValueError(
                    f"edge_index names nodes {lowest} to {highest}, the graph has nodes 0 to "
                    f"{n_nodes - 1}."
                )
        others = edge_index[:, edge_index[0] != edge_index[1]]
        loops = torch.arange(n_nodes, device=edge_index.device).expand(2, -1)
        sender, receiver = torch.cat([others, loops], dim=1)
        receiver, order = receiver.sort(stable=True)
        sender = sender[order]
        by_sender, position = sender.sort(stable=True)
        return cls(
            _offsets(receiver, n_nodes),
            sender.int(),
            _offsets(by_sender, n_nodes),
            receiver[position].int(),
            position.int(),
        )

    @classmethod
    def join(cls, graphs: Sequence[Edges]) -> Edges:
        """One graph of several on the CPU, whose nodes are numbered consecutively."""
        if len(graphs) == 1:
            return graphs[0]
        # In NumPy, because an operation of torch takes longer than its work on small graphs.
        incoming, outgoing = zip(*[g.arrays for g in graphs], strict=True)
        in_ends, sender = zip(*[(offsets[1:], sent) for offsets, sent in incoming], strict=True)
        out_ends, receiver, position = zip(
            *[(offsets[1:], received, place) for offsets, received, place in outgoing], strict=True
        )
        n_nodes, n_edges = [[len(part) for part in parts] for parts in (in_ends, sender)]
        nodes, edges = (np.cumsum([0, *n[:-1]], dtype=np.int32) for n in (n_nodes, n_edges))
        by_node, by_edge = np.repeat(edges, n_nodes), np.repeat(nodes, n_edges)
        zero = [np.zeros(1, np.int32)]
        joined = (
            np.concatenate([*zero, np.concatenate(in_ends) + by_node]),
            np.concatenate(sender) + by_edge,
            np.concatenate([*zero, np.concatenate(out_ends) + by_node]),
            np.concatenate(receiver) + by_edge,
            np.concatenate(position) + np.repeat(edges, n_edges),
        )
        return cls(*map(torch.from_numpy, joined))

    @property
    def n_nodes(self) -> int:
        return len(self.in_offsets) - 1

    @property
    def n_edges(self) -> int:
        return len(self.sender)

    @cached_property
    def arrays(self) -> tuple[tuple[NDArray, ...], tuple[NDArray, ...]]:
        """Views for compiled loops: (in_offsets, sender) and (out_offsets, receiver, position)."""
        incoming = (self.in_offsets, self.sender)
        outgoing = (self.out_offsets, self.receiver, self.position)
        return tuple(t.numpy() for t in incoming), tuple(t.numpy() for t in outgoing)

    @cached_property
    def in_degrees(self) -> Degrees:
        """Nodes by the number of edges that end in them."""
        return Degrees.of(self.in_offsets)

    @cached_property
    def out_degrees(self) -> Degrees:
        """Nodes by the number of edges that begin in them."""
        return Degrees.of(self.out_offsets)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def to(self, device: str | torch.device) -> Self:
        """The same edges on another device."""
        return self.map(lambda t: t.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same edges with a function applied to each tensor, such as a move to a device."""
        edges = type(self)(*(function(getattr(self, field.name)) for field in fields(self)))
        # Degrees are taken along: another device would have to be waited for.
        for name in ("in_degrees", "out_degrees"):
            vars(edges)[name] = getattr(self, name).map(function)
        return edges

    def among(self, kept: Tensor) -> Edges:
        """Edges between the nodes of a boolean mask (n,), which are renumbered in their order."""
        senders, receivers = self.pairs()
        both = kept[senders] & kept[receivers]
        number = kept.cumsum(0) - 1
        index = torch.stack([number[senders[both]], number[receivers[both]]])
        return Edges.of(index, int(kept.sum()))

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Senders and receivers, (E,) each, by receiver."""
        nodes = torch.arange(self.n_nodes, device=self.sender.device)
        receivers = nodes.repeat_interleave(self.in_offsets.diff(), output_size=self.n_edges)
        return self.sender.long(), receivers


def _offsets(sorted_nodes: Tensor, n_nodes: int) -> Tensor:
    counts = torch.bincount(sorted_nodes, minlength=n_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
