"""Nearest patches, chosen by where patches are and what they hold, not by their order.

Of equally near patches the further left is taken, then the further up. Of patches at one place a
digest of their features decides. So a slide whose patches are permuted keeps its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_SAME = 1e-6  # distances of which one is larger by a smaller share are equal
_ROUNDING = 1e-7  # of the largest length of a vector: error of scikit-learn's fast distances
_FEW = 1024  # points
_AT_ONCE = 2**22  # numbers that are held in memory together

# Of the points in some rows: the m nearest points, themselves included, in ascending order.
Search = Callable[[NDArray, int], tuple[NDArray, NDArray]]


def row_keys(blocks: Iterable[NDArray]) -> NDArray:
    """Digest of each row of features, equal for equal rows: uint64 of shape (n_instances,)."""
    return np.concatenate([_digests(np.asarray(block, dtype=np.float32)) for block in blocks])


def _digests(rows: NDArray) -> NDArray:
    drawn = np.random.default_rng(0).integers(2**63, size=rows.shape[1], dtype=np.uint64)
    factors = np.asarray(2 * drawn + 1)  # odd, so that none erases a bit
    bits = np.ascontiguousarray(rows + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column, factor in zip(bits.T, factors, strict=True):
        keys += column * factor  # modulo 2**64
    return keys


def nearest_patches(
    coords: NDArray, n_neighbors: int, keys: Callable[[], NDArray] | None = None
) -> NDArray:
    """The `n_neighbors` nearest other patches of each patch, (n, min(k, n - 1)).

    Patches at identical coordinates are each other's neighbours; a patch is never its own.

    Parameters
    ----------
    coords : ndarray of shape (n, 2)
    n_neighbors : int
    keys : callable, optional
        Gives `row_keys` of the patches. It is called only if patches are at identical coordinates,
        of which those with the smallest keys are taken first.
    """
    points = np.asarray(coords, dtype=np.float64)
    order = np.lexsort((points[:, 1], points[:, 0]))
    in_order = points[order]
    new = np.any(in_order[1:] != in_order[:-1], axis=1)
    return _nearest(points, n_neighbors, _by_distance, (order, new), keys)


def most_similar_patches(features: NDArray, n_neighbors: int) -> NDArray:
    """The `n_neighbors` other patches of nearest features of each patch, (n, min(k, n - 1))."""
    keys = row_keys([features])
    order = np.argsort(keys, kind="stable")
    new = np.diff(keys[order]) != 0
    return _nearest(features, n_neighbors, _by_features, (order, new), lambda: keys)


def _by_distance(points: NDArray) -> Search:
    tree = cKDTree(points)
    return lambda rows, m: tree.query(points[rows], k=np.arange(1, m + 1))


def _by_features(points: NDArray) -> Search:
    from sklearn.neighbors import NearestNeighbors  # imports much of scikit-learn

    fitted = NearestNeighbors().fit(points)

    def search(rows: NDArray, m: int) -> tuple[NDArray, NDArray]:
        found = fitted.kneighbors(points[rows], m, return_distance=False)
        distances = _distances(points, rows, found)  # the search's own differ from row to row
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)

    return search


def _distances(points: NDArray, rows: NDArray, found: NDArray) -> NDArray:
    """Distances of the points in `rows` to those that were `found`, (n_rows, m)."""
    step = max(1, _AT_ONCE // (found.shape[1] * points.shape[1]))
    parts = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        own = points[rows[part], None].astype(np.float64)
        parts.append(np.sqrt(np.square(points[found[part]] - own).sum(axis=2)))
    return np.concatenate(parts)


def _nearest(
    points: NDArray,
    n_neighbors: int,
    make_search: Callable[[NDArray], Search],
    sorting: tuple[NDArray, NDArray],
    keys: Callable[[], NDArray] | None,
) -> NDArray:
    """Neighbours of points, given an order of them and which differ from the one before."""
    n = len(points)
    k = min(n_neighbors, n - 1)
    if k == 0:
        return np.empty((n, 0), dtype=np.int64)
    order, new = sorting
    starts = np.flatnonzero(np.concatenate([[True], new]))
    distinct = points[order[starts]]  # sorted points are found several times as fast
    search, repeated = make_search(distinct), len(distinct) < n
    near = _of_distinct(search, distinct, min(k, len(distinct) - 1), sort=repeated)
    found = np.empty((n, k), dtype=np.int64)
    if not repeated:
        found[order] = order[near[:, 1:]]
        return found
    place = np.zeros(n, dtype=np.int64)
    place[order[1:]] = new.cumsum()
    members = order if keys is None else np.lexsort((keys(), place))
    candidates = _members(near, members, starts, k + 1)[place]
    # Among more than k equal points a point may be absent from its own candidates.
    itself = candidates == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True
    return candidates[~itself].reshape(n, k)


def _members(near: NDArray, members: NDArray, starts: NDArray, size: int) -> NDArray:
    """The first `size` points at the places in each row of `near`, (n_places, size)."""
    counts = np.diff(starts, append=len(members))
    ends = counts[near].cumsum(axis=1)
    columns = []
    for i in range(size):
        column = (ends <= i).sum(axis=1)[:, None]
        place = np.take_along_axis(near, column, 1)[:, 0]
        from_end = np.take_along_axis(ends, column, 1)[:, 0] - i
        columns.append(members[starts[place] + counts[place] - from_end])
    return np.stack(columns, axis=1)


def _of_distinct(search: Search, points: NDArray, k: int, *, sort: bool) -> NDArray:
    """Each point and its `k` nearest others, (n, k + 1); with `sort` in order, else as a set.

    Of equally near points the first ones in `points` are taken.
    """
    n = len(points)
    if n <= min(k + 2, _FEW):  # all of them are found at once
        return _ordered(*search(np.arange(n), n), k, sort)
    result = np.empty((n, k + 1), dtype=np.int64)
    rounding = _ROUNDING * float(np.linalg.norm(points, axis=1).max())
    undecided, m = np.arange(n), min(k + 2, n)
    while len(undecided):
        left = []
        for rows in np.array_split(undecided, -(-len(undecided) * m // _AT_ONCE)):
            distances, found = search(rows, m)
            # All that are as near as the last neighbour must be among those that were found.
            known = distances[:, -1] > distances[:, k] * (1 + _SAME) + rounding
            known = (known & (found[:, 0] == rows)) | (m == n)
            result[rows[known]] = _ordered(distances[known], found[known], k, sort)
            left.append(rows[~known])
        undecided, m = np.concatenate(left), min(m + k + 2, n) if m < 4 * k else min(2 * m, n)
    return result


def _ordered(distances: NDArray, found: NDArray, k: int, sort: bool) -> NDArray:
    """The first k + 1 of the points that were found, by distance and then by number."""
    chosen = found[:, : k + 1]
    if k + 1 == found.shape[1] and not sort:
        return chosen
    kth = distances[:, k]
    tied = np.full(len(found), True) if sort else distances[:, k + 1] <= kth * (1 + _SAME)
    unit = np.maximum(kth[tied, None] * _SAME, np.finfo(float).tiny)
    order = np.lexsort((found[tied], np.rint(distances[tied] / unit)), axis=1)[:, : k + 1]
    chosen[tied] = np.take_along_axis(found[tied], order, 1)
    return chosen
