"""Arrays of a bag: checks, and functions that transform features and filter instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagError


class BagArrays(NamedTuple):
    """The checked content of a bag.

    Attributes
    ----------
    features : ndarray of shape (n_instances, n_features), float32
    coords : ndarray of shape (n_instances, 2) or None
        Level-0 pixels, top-left corner (x, y).
    edge_index : ndarray of shape (2, n_edges) or None
        Rows: sending instance, receiving instance.
    slide_index : ndarray of shape (n_instances,) or None
        Which slide of a patient each instance is from, ascending; None for a single slide.
    """

    features: NDArray
    coords: NDArray | None
    edge_index: NDArray | None
    slide_index: NDArray | None = None


def to_numpy(values: Any) -> NDArray:
    """Array of `values`; torch tensors (also bfloat16) are brought to the host first."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def check_features(features: Any, name: str) -> NDArray:
    """Return `features` as a finite, non-empty float32 matrix; errors name the bag."""
    features = np.asarray(features)
    if features.size == 0:
        raise BagError(
            f"{name} is empty: its features have shape {features.shape}. Remove the slide from "
            "the cohort or extract its features again."
        )
    if features.ndim != 2:
        raise BagError(
            f"{name}: features must have two dimensions (instances, features), got shape "
            f"{features.shape}."
        )
    if features.dtype.kind not in "fiub":
        raise BagError(f"{name}: features must be numbers, got dtype {features.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
        total = features.sum(dtype=np.float64)
    # A finite sum proves finite entries in one pass; only a suspicious one is searched.
    if not np.isfinite(total):
        bad = np.argwhere(~np.isfinite(features))
        kind = "NaN" if np.isnan(features[tuple(bad[0])]) else "infinite"
        raise BagError(
            f"{name}: {len(bad)} NaN or infinite feature values, the first ({kind}) in instance "
            f"{bad[0][0]}, feature {bad[0][1]}. Extract the features again or remove the slide."
        )
    return features


def check_n_features(
    found: int, bag_name: str, expected: int, reference: str = "the model is expecting"
) -> None:
    """Raise a `BagError` if a bag has another number of features than `reference`."""
    if found != expected:
        raise BagError(
            f"X has {found} features in {bag_name}, but {reference} {expected} features. "
            "Extract all slides with one encoder."
        )


def check_coords(coords: NDArray | None, n_instances: int, name: str) -> NDArray | None:
    """Return `coords` if they are finite and (n_instances, 2); errors name the bag."""
    if coords is None:
        return None
    coords = np.asarray(coords)
    if coords.shape != (n_instances, 2):
        raise BagError(
            f"{name}: coordinates of shape {coords.shape} do not fit {n_instances} instances; "
            f"expected ({n_instances}, 2)."
        )
    if coords.dtype.kind not in "fiu" or not np.isfinite(coords).all():
        raise BagError(f"{name}: coordinates must be finite numbers (level-0 pixels).")
    return coords


def check_edges(edges: NDArray | None, n_instances: int, name: str) -> NDArray | None:
    """Return `edges` between instances of the bag as int64; errors name the bag."""
    if edges is None:
        return None
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise BagError(
            f"{name}: edge_index must be integers of shape (2, n_edges), got {edges.dtype} of "
            f"shape {edges.shape}."
        )
    if edges.size and (edges.min() < 0 or edges.max() >= n_instances):
        raise BagError(
            f"{name}: edge_index holds instances {edges.min()} to {edges.max()}, the bag has "
            f"instances 0 to {n_instances - 1}."
        )
    return edges.astype(np.int64, copy=False)


def map_features(
    transform: Callable[[NDArray], NDArray], arrays: BagArrays, name: str
) -> BagArrays:
    """Apply `transform` to the features of `arrays`; errors call the bag `name`."""
    try:
        features = transform(arrays.features)
    except ValueError as error:
        raise BagError(f"{name} does not suit its transformer: {error}") from error
    features = check_features(features, f"{name} after its transformer")
    if len(features) != len(arrays.features):
        raise BagError(
            f"{name}: its transformer made {len(features)} instances of {len(arrays.features)}. "
            "Leave instances out with Bag.filter, which cuts coordinates and graph as well."
        )
    return arrays._replace(features=features)


def _edges_between(edges: NDArray, mask: NDArray) -> NDArray:
    """Edges between the instances in `mask`, which are numbered anew."""
    numbers = np.cumsum(mask) - 1
    return numbers[edges[:, mask[edges].all(axis=0)]]


def keep_instances(keep: Callable[[BagArrays], NDArray], arrays: BagArrays, name: str) -> BagArrays:
    """Drop the instances where `keep` is False; errors call the bag `name`."""
    n = len(arrays.features)
    try:
        mask = np.asarray(keep(arrays))
    except ValueError as error:
        raise BagError(f"{name} does not suit its filter: {error}") from error
    if mask.dtype != bool or mask.shape != (n,):
        raise BagError(
            f"{name}: its filter must give one True or False for each of {n} instances, got "
            f"{mask.dtype} of shape {mask.shape}."
        )
    if not mask.any():
        raise BagError(
            f"{name} is empty after its filter, which drops all {n} instances. Loosen the filter, "
            "or remove the slide from the cohort."
        )
    return BagArrays(
        arrays.features[mask],
        None if arrays.coords is None else arrays.coords[mask],
        None if arrays.edge_index is None else _edges_between(arrays.edge_index, mask),
        None if arrays.slide_index is None else np.asarray(arrays.slide_index)[mask],
    )
