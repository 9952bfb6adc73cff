"""A bag: the patch features of one slide, in memory or waiting in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagError
from .info import BagInfo


class BagSource(Protocol):
    """Where a lazy bag comes from: knows its shape, reads itself when asked."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self) -> BagArrays: ...


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


class Bag:
    """Patch features of one slide, with coordinates and ids where they are known.

    Parameters
    ----------
    features : array-like of shape (n_instances, n_features), or BagSource
        A `BagSource` (a file) is read each time the content is needed and not kept.
    coords : array-like of shape (n_instances, 2), optional
        Level-0 pixels, top-left corner (x, y).
    edge_index : array-like of shape (2, n_edges), optional
        A graph of the bag's own; row 0 sends to row 1.
    bag_id, patient_id : str, optional
        Slide and patient. Omics is joined on them and splits are grouped by patient.

    Raises
    ------
    BagError
        On :meth:`load`, when the bag is empty, not finite, or its parts disagree in length.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag
    >>> Bag(np.ones((3, 4)), coords=[[0, 0], [256, 0], [0, 256]], bag_id="S1", patient_id="P1")
    Bag('S1', patient='P1', 3 instances x 4 features, coords)
    """

    __slots__ = ("_coords", "_edge_index", "_maps", "_source", "bag_id", "patient_id")

    def __init__(
        self,
        features: Any,
        coords: Any = None,
        *,
        edge_index: Any = None,
        bag_id: str | None = None,
        patient_id: str | None = None,
    ) -> None:
        self._source = features if _is_source(features) else to_numpy(features)
        self._coords = None if coords is None else to_numpy(coords)
        self._edge_index = None if edge_index is None else to_numpy(edge_index)
        self._maps: tuple[Callable[[NDArray], NDArray], ...] = ()
        self.bag_id = None if bag_id is None else str(bag_id)
        self.patient_id = None if patient_id is None else str(patient_id)

    @property
    def name(self) -> str:
        """How error messages call the bag."""
        return "a bag without id" if self.bag_id is None else f"bag {self.bag_id!r}"

    @property
    def is_lazy(self) -> bool:
        """Whether the features are read from a file each time they are needed."""
        return not isinstance(self._source, np.ndarray)

    @property
    def source(self) -> BagSource | None:
        """Where a lazy bag is read from; None for one in memory, or one that is transformed."""
        return None if self._maps or isinstance(self._source, np.ndarray) else self._source

    @property
    def info(self) -> BagInfo:
        """Format, keys, unit and patch size; a file is opened for its header."""
        if isinstance(self._source, np.ndarray):
            return BagInfo("memory", unit=None if self._coords is None else "level-0 px")
        describe = getattr(self._source, "info", None)  # a source of one's own need not have it
        return BagInfo("custom") if describe is None else describe()

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features); a file is opened for its header only."""
        if self._maps:
            return self.load().features.shape
        shape = self._source.shape
        if len(shape) != 2:
            raise BagError(
                f"{self.name}: features must have two dimensions (instances, features), got shape "
                f"{tuple(shape)}."
            )
        return shape

    @property
    def n_instances(self) -> int:
        """Number of patches."""
        return self.shape[0]

    @property
    def n_features(self) -> int:
        """Width of the patch features."""
        return self.shape[1]

    @property
    def features(self) -> NDArray:
        """Checked features, float32, of shape (n_instances, n_features)."""
        return self.load().features

    @property
    def coords(self) -> NDArray | None:
        """Checked coordinates, level-0 pixels, of shape (n_instances, 2)."""
        return self.load().coords

    @property
    def edge_index(self) -> NDArray | None:
        """The bag's own graph, of shape (2, n_edges)."""
        return self.load().edge_index

    def load(self, name: str | None = None) -> BagArrays:
        """Read and check the whole bag.

        Parameters
        ----------
        name : str, optional
            How errors call the bag; by default its id.

        Raises
        ------
        BagError
            Naming the bag, what came and what was expected.
        """
        name = name or self.name
        if isinstance(self._source, np.ndarray):
            features, coords, edges, slides = self._source, None, None, None
        else:
            features, coords, edges, slides = self._source.read()
        coords = coords if self._coords is None else self._coords
        edges = edges if self._edge_index is None else self._edge_index
        features = check_features(features, name)
        for transform in self._maps:
            try:
                features = transform(features)
            except ValueError as error:
                raise BagError(f"{name} does not suit its transformer: {error}") from error
            features = check_features(features, f"{name} after its transformer")
        n = len(features)
        coords, edges = _check_coords(coords, n, name), _check_edges(edges, n, name)
        return BagArrays(features, coords, edges, slides)

    def _described(self) -> str:
        try:
            return str(self.info)
        except BagError:
            return "unreadable"

    def map(self, transform: Callable[[NDArray], NDArray]) -> Self:
        """Bag whose features pass through `transform` whenever they are read."""
        bag = object.__new__(type(self))
        for slot in Bag.__slots__:
            setattr(bag, slot, getattr(self, slot))
        bag._maps = (*self._maps, transform)
        return bag

    def __repr__(self) -> str:
        parts = [] if self.bag_id is None else [repr(self.bag_id)]
        parts += [] if self.patient_id is None else [f"patient={self.patient_id!r}"]
        if self.is_lazy:
            parts.append(f"from {self._source} ({self._described()})")
        elif len(self._source.shape) == 2:
            parts.append("{} instances x {} features".format(*self._source.shape))
        else:
            parts.append(f"features of shape {self._source.shape}")
        parts += ["coords"] if self._coords is not None else []
        parts += ["graph"] if self._edge_index is not None else []
        return f"Bag({', '.join(parts)})"


def _is_source(values: Any) -> TypeGuard[BagSource]:
    """Whether `values` is to be read later; asking for its shape would open the file."""
    return callable(getattr(type(values), "read", None))


def to_numpy(values: Any) -> NDArray:
    """Array of `values`; torch tensors (also bfloat16) are brought to the host first."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def check_features(features: Any, name: str) -> NDArray:
    """`features` as a finite, non-empty float32 matrix, or an error that names the bag."""
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


def _check_coords(coords: NDArray | None, n_instances: int, name: str) -> NDArray | None:
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


def _check_edges(edges: NDArray | None, n_instances: int, name: str) -> NDArray | None:
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
            f"{name}: edge_index names instances {edges.min()} to {edges.max()}, the bag has "
            f"instances 0 to {n_instances - 1}."
        )
    return edges.astype(np.int64, copy=False)
