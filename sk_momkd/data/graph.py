"""The graph of a bag: which patches are neighbours, and which of them sends to the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagError
from .arrays import BagArrays
from .neighbors import most_similar_patches, nearest_patches, row_keys

GRAPHS = ("auto", "spatial", "stored", "features", "none")
EDGE_FLOWS = ("neighbors", "release", "symmetric")


def _slide_by_slide(bag: BagArrays, keys: Callable[[], NDArray], **options: Any) -> NDArray:
    """Build the graph of each slide of a patient alone, because their coordinates overlap."""
    keys = cache(keys)
    starts = np.flatnonzero(np.diff(np.asarray(bag.slide_index), prepend=-1))
    graphs = []
    for start, end in zip(starts, [*starts[1:], len(bag.features)], strict=True):
        coords = None if bag.coords is None else bag.coords[start:end]
        slide = BagArrays(bag.features[start:end], coords, None)
        own_keys = partial(_part_of, keys, slice(start, end))
        graphs.append(build_edges(slide, keys=own_keys, **options) + start)
    return np.concatenate(graphs, axis=1)


def _part_of(keys: Callable[[], NDArray], part: slice) -> NDArray:
    return keys()[part]


def _directed(neighbors: NDArray, edge_flow: str) -> NDArray:
    n, k = neighbors.shape
    own, other = np.repeat(np.arange(n), k), neighbors.ravel()
    if edge_flow == "neighbors":
        return np.stack([other, own])
    if edge_flow == "release":
        return np.stack([own, other])
    pairs = np.stack([np.concatenate([other, own]), np.concatenate([own, other])])
    return np.unique(pairs, axis=1)


def _nearest_of_release(points: NDArray, n_neighbors: int) -> NDArray:
    """The `n_neighbors` nearest other points by scikit-learn's search, (n, min(k, n - 1)).

    Among equally near points the order of the points decides, as in the authors' code.
    """
    k = min(n_neighbors, len(points) - 1)
    if k == 0:
        return np.empty((len(points), 0), dtype=np.int64)
    from sklearn.neighbors import NearestNeighbors  # imports much of scikit-learn

    # Without a query, scikit-learn leaves each point out of its own neighbours.
    search = NearestNeighbors(n_neighbors=k).fit(points)
    return search.kneighbors(return_distance=False).astype(np.int64)


def build_edges(
    bag: BagArrays,
    *,
    graph: str = "auto",
    n_neighbors: int = 8,
    edge_flow: str = "neighbors",
    keys: Callable[[], NDArray] | None = None,
) -> NDArray:
    """Edges of a bag as ``edge_index`` (row 0 sends to row 1), without self loops.

    They follow the patches if these are permuted, unless `edge_flow` is ``"release"``.

    Parameters
    ----------
    bag : BagArrays
    graph : {"auto", "spatial", "stored", "features", "none"}, default="auto"
        ``"auto"`` takes the stored graph, else builds one from the coordinates, else has no edges
        (each patch then attends to itself alone). The other values require one kind.
    n_neighbors : int, default=8
        Neighbours of each patch; fewer where the bag has fewer patches.
    edge_flow : {"neighbors", "release", "symmetric"}, default="neighbors"
        ``"neighbors"``: a patch receives from its own nearest neighbours. ``"release"``: it sends
        to them, and among equally near patches they are those that the authors' code takes.
        ``"symmetric"``: both. A stored graph is used as it is.
    keys : callable, optional
        Gives `row_keys` of the features, by which one of several patches at identical coordinates
        is chosen; needed where `bag` holds no features.

    Returns
    -------
    ndarray of shape (2, n_edges), int64

    Raises
    ------
    BagError
        If `graph` asks for something that the bag does not have.

    Examples
    --------
    >>> import numpy as np
    >>> bag = BagArrays(np.ones((3, 2)), np.array([[0, 0], [1, 0], [5, 0]]), None)
    >>> build_edges(bag, n_neighbors=1)
    array([[1, 0, 1],
           [0, 1, 2]])
    """
    keys = partial(row_keys, [bag.features]) if keys is None else keys
    if bag.slide_index is not None and bag.edge_index is None:
        options = {"graph": graph, "n_neighbors": n_neighbors, "edge_flow": edge_flow}
        return _slide_by_slide(bag, keys, **options)
    if graph == "stored" or (graph == "auto" and bag.edge_index is not None):
        if bag.edge_index is None:
            raise BagError("graph='stored', but the bag has no edge_index.")
        return bag.edge_index
    if graph == "features":
        similar = _nearest_of_release if edge_flow == "release" else most_similar_patches
        return _directed(similar(bag.features, n_neighbors), edge_flow)
    if graph == "spatial" or (graph == "auto" and bag.coords is not None):
        if bag.coords is None:
            raise BagError("graph='spatial', but the bag has no coordinates.")
        if edge_flow == "release":
            return _directed(_nearest_of_release(bag.coords, n_neighbors), edge_flow)
        return _directed(nearest_patches(bag.coords, n_neighbors, keys), edge_flow)
    return np.empty((2, 0), dtype=np.int64)
