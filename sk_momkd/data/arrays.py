"""Arrays of a bag: checks, and functions that transform features and filter instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..bag_warnings import warn_of_bag
from ..exceptions import BagError, EmptyInstancesWarning, FeatureTypeWarning

_WIDE = 8  # features; an instance of fewer may be zero by chance


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
    if sparse.issparse(values):
        return values.toarray()
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        missing = np.ma.getmaskarray(values)
        return np.where(missing, np.nan, values.data)  # else the fill value would be read
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
    if features.dtype.kind in "iu":
        _refuse_bit_patterns(features, name)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
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


_FLOAT_OF_SIZE = {2: ("float16", "bfloat16"), 4: ("float32",), 8: ("float64",)}
_MANTISSA = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}  # bits
_PLAUSIBLE = (2.0**-13, 2.0**12)  # magnitude of features
_SAMPLE = 2**17
_SURE = 0.12  # standard error of a jump that tells 0.69 from 0


def _as_float(bits: NDArray, kind: str) -> NDArray:
    if kind != "bfloat16":
        return bits.view(kind).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _refuse_bit_patterns(features: NDArray, name: str) -> None:
    """Raise if integers are the bits of floats, as tools store bfloat16 for want of a dtype.

    As floats nearly all have the magnitude of features; as integers nearly all are large, and
    their frequency jumps where a float doubles.
    """
    kinds = _FLOAT_OF_SIZE.get(features.dtype.itemsize, ())
    sample = features[:: max(1, features.size // _SAMPLE)].ravel()
    sample = np.ascontiguousarray(sample[sample != 0])
    if not len(sample):
        return
    bits = sample.view(f"u{sample.dtype.itemsize}") if kinds else sample
    unsure = ""
    for kind in kinds:
        with np.errstate(invalid="ignore"):
            size = np.abs(_as_float(bits, kind))
        in_range = ((size >= _PLAUSIBLE[0]) & (size <= _PLAUSIBLE[1])).mean()
        large = np.median(np.abs(sample.astype(np.float64))) > 2**13
        if in_range <= 0.95 or not large:
            continue
        sure = len(kinds) == 1 or _are_bits(bits, kind)
        if sure is False:
            continue
        found = (
            f"features are integers of dtype {features.dtype} from {sample.min()} to "
            f"{sample.max()}, which {'are' if sure else 'could be'} the bits of {kind} numbers (up "
            f"to {size.max():.3g})."
        )
        if sure:
            raise BagError(
                f"{name}: {found} Convert them when they are written, e.g. tensor.float() before "
                "saving."
            )
        unsure = unsure or found
    if unsure:
        warn_of_bag(
            name,
            f"{unsure} They are taken for numbers. If they are, store them as floats.",
            FeatureTypeWarning,
        )


def _are_bits(bits: NDArray, kind: str) -> bool | None:
    """Whether 16-bit integers of the size of bits of floats are such, or intensities.

    Bits of floats count evenly between 2**k and 2**(k+1), so that their frequency doubles from one
    octave to the next where that of the floats goes on; intensities know of no octaves. Too few
    values to see that are bits if both signs occur, which leaves a gap between two groups, and
    are unknown (None) otherwise.
    """
    quarter = _MANTISSA[kind] - 2  # of an octave, in bits
    unsigned = bits & (np.iinfo(bits.dtype).max >> 1)
    if not (unsigned & ((1 << quarter) - 1)).any():
        return False  # multiples of a large number
    first = int(unsigned.min() >> quarter) & ~3
    counts = np.bincount((unsigned >> quarter).astype(np.int64) - first).astype(float)
    counts = np.pad(counts, (4, 8 - len(counts) % 4)) + 0.5
    edges = np.arange(4, len(counts) - 1, 4)  # the first quarter of each octave
    below2, below, above, above2 = (np.log(counts[edges + shift]) for shift in (-2, -1, 0, 1))
    jumps = above - below - ((below - below2) + (above2 - above)) / 2
    errors = 2.25 / counts[edges] + 2.25 / counts[edges - 1]
    weights = 1 / (errors + 0.25 / counts[edges - 2] + 0.25 / counts[edges + 1])
    if weights.sum() > 1 / _SURE**2:
        return bool((jumps * weights).sum() / weights.sum() > np.log(2) / 2)
    negative = (bits > unsigned).mean()
    return True if 0.05 < negative < 0.95 else None


def empty_instances(features: NDArray, fill: float = 0.0) -> NDArray:
    """Positions of instances whose features all equal `fill`, as HDF5 reads what is not there."""
    empty = np.arange(len(features))
    for column in (0, features.shape[1] // 2, features.shape[1] - 1):  # most instances end here
        empty = empty[features[empty, column] == fill]
    return empty[(features[empty] == fill).all(axis=1)]


def report_empty(empty: NDArray, shape: tuple[int, int], name: str, fill: float = 0.0) -> None:
    """Raise if all instances of a bag are empty; warn with their share if some are.

    Parameters
    ----------
    empty : ndarray
        Positions as of `empty_instances`.
    shape : (n_instances, n_features)
    name : str
        How messages call the bag.
    fill : float, default=0.0
    """
    n, width = shape
    if len(empty) == n:
        raise BagError(
            f"{name}: all {n * width} feature values are {fill:g}, as in a file whose content was "
            "never written. Extract its features again, remove the slide, or allow it with "
            "allow_constant=True."
        )
    if len(empty) and width >= _WIDE:
        warn_of_bag(
            name,
            f"{len(empty)} of {n} instances ({len(empty) / n:.1%}) have no feature but "
            f"{fill:g}, the first is instance {empty[0]}. A part of the file may never have been "
            "written; if it is meant so, allow_constant=True.",
            EmptyInstancesWarning,
        )


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
