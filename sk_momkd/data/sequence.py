"""Bags as one sequence, which scikit-learn slices without reading features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from os import PathLike
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from ..exceptions import BagError
from ..messages import first_few, repeated
from .arrays import BagArrays, to_numpy
from .bag import NO_TABLE, Bag
from .ids import RULES, both, collisions, counts_rows, normalise_id

_SHOWN = 5  # bags in a notebook
_MISSING_AS_TEXT = frozenset({"nan", "None", "<NA>", "NaT"})
CENTRES = ("centroid", "centroids", "centers", "centres")  # of patches; the rest are corners
POSITIONS = (
    *("pos", "coords", "coordinates", "positions", "position", "coord", "xy"),
    *("patch_coords", "tile_coords", "locations", "spatial", *CENTRES),
)


def _objects(values: Iterable[Any]) -> NDArray:
    return np.fromiter(values, dtype=object)


def _drop_ellipsis(index: tuple) -> Any:
    rest = [part for part in index if part is not Ellipsis]
    if len(rest) != 1:
        raise IndexError(f"BagSequence has one dimension, got the index {index!r}.")
    return rest[0]


def _index_dtype(index: Any) -> type | None:
    """Type of an index: int for an empty one, whose type numpy would take for float."""
    return int if np.size(index) == 0 else None


class BagSequence:
    """Bags that index like a one-dimensional array.

    An int gives a `Bag`; a slice, an integer array, a boolean mask or scikit-learn's
    ``(index, Ellipsis)`` gives a `BagSequence`. No features are read while indexing, and a
    sequence of bags in files pickles as their paths.

    Parameters
    ----------
    bags : iterable of Bag

    Raises
    ------
    BagError
        If two bags carry the same ``bag_id``.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, BagSequence
    >>> bags = BagSequence(Bag(np.ones((i + 1, 4)), bag_id=f"S{i}") for i in range(3))
    >>> bags
    BagSequence of 3 bags, first Bag('S0', 1 instances x 4 features)
    >>> bags[[2, 0]].ids
    array(['S2', 'S0'], dtype=object)
    """

    def __init__(self, bags: Iterable[Bag]) -> None:
        self._bags = list(bags)
        first: dict[int, int] = {}  # a repeated bag keeps its first position
        self._positions = [first.setdefault(id(bag), i) for i, bag in enumerate(self._bags)]
        for position, bag in enumerate(self._bags):
            if not isinstance(bag, Bag):
                raise BagError(
                    f"Element {position} is a {type(bag).__name__}, expected a Bag. Use "
                    "as_bags(...) to convert arrays."
                )
        self._check_ids()

    def _check_ids(self) -> None:
        """Raise if two bags have one id, or a patient is written in two ways."""
        for what, place in (("bag", 0), ("patient", 1)):
            given = [b.given_ids[place] for b in self._bags if (b.bag_id, b.patient_id)[place]]
            if collided := collisions(given):
                raise BagError(
                    f"{len(collided)} {what} ids are written in several ways: {both(collided)}. "
                    f"{RULES}"
                )
        written = [bag.patient_id for bag in self._bags if bag.patient_id in _MISSING_AS_TEXT]
        if twice := repeated(written):
            raise BagError(
                f"{written.count(twice[0])} bags have the patient id {twice[0]!r}, the text of a "
                "missing one, and would be of one patient. Give None where it is unknown."
            )
        twice = repeated(bag.bag_id for bag in self._bags if bag.bag_id is not None)
        if twice:
            raise BagError(f"{len(twice)} bag ids occur more than once: {first_few(twice)}.")

    @property
    def shape(self) -> tuple[int]:
        """(n_bags,); with it scikit-learn slices the sequence instead of reading it."""
        return (len(self._bags),)

    @property
    def ids(self) -> NDArray:
        """Bag ids, None where a bag has none; object array of shape (n_bags,)."""
        return _objects(bag.bag_id for bag in self._bags)

    @property
    def patient_ids(self) -> NDArray:
        """Patient ids, None where a bag has none; object array of shape (n_bags,)."""
        return _objects(bag.patient_id for bag in self._bags)

    def groups(self) -> NDArray:
        """Integer group per bag: its patient, or itself where the patient is unknown.

        A bag that occurs several times, as in a bootstrap, is one group: it is recognised by its
        id, else by its position in the original sequence.

        Returns
        -------
        int ndarray of shape (n_bags,)
        """
        codes: dict[Any, int] = {}
        keys = (
            ("patient", bag.patient_id)
            if bag.patient_id is not None
            else ("place", place)
            if bag.bag_id is None
            else ("bag", bag.bag_id)
            for bag, place in zip(self._bags, self._positions, strict=True)
        )
        return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=int)

    def map(self, transform: Callable[[NDArray], NDArray]) -> BagSequence:
        """Sequence whose features are transformed whenever they are read.

        Parameters
        ----------
        transform : callable
            As in :meth:`Bag.map`.

        Returns
        -------
        BagSequence
        """
        return self.replace(bag.map(transform) for bag in self._bags)

    def filter(self, keep: Callable[[BagArrays], NDArray]) -> BagSequence:
        """Sequence of the instances for which `keep` is True.

        Parameters
        ----------
        keep : callable
            As in :meth:`Bag.filter`.

        Returns
        -------
        BagSequence
        """
        return self.replace(bag.filter(keep) for bag in self._bags)

    def replace(self, bags: Iterable[Bag]) -> BagSequence:
        """Sequence of other bags at the positions of these; repeated bags stay repeated.

        Parameters
        ----------
        bags : iterable of Bag
            As many as there are in the sequence.

        Returns
        -------
        BagSequence
        """
        return self._same(list(bags), self._positions)

    def load(self, position: int) -> BagArrays:
        """Read and check the bag at `position`; errors name it as :meth:`name` does.

        Parameters
        ----------
        position : int

        Returns
        -------
        BagArrays
        """
        return self._bags[position].load(self.name(position))

    def name(self, position: int) -> str:
        """How error messages call a bag: its id, else its position in the original sequence.

        Parameters
        ----------
        position : int

        Returns
        -------
        str
        """
        bag = self._bags[position]
        return f"bag {self._positions[position]}" if bag.bag_id is None else bag.name

    def __len__(self) -> int:
        return len(self._bags)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        if dtype is not None and np.dtype(dtype) == object:
            return _objects(self._bags)
        raise BagError(f"A BagSequence is no array of numbers. {NO_TABLE}")

    def __iter__(self) -> Iterator[Bag]:
        return iter(self._bags)

    @overload
    def __getitem__(self, index: int | np.integer) -> Bag: ...
    @overload
    def __getitem__(self, index: Any) -> BagSequence: ...
    def __getitem__(self, index: Any) -> Bag | BagSequence:
        if isinstance(index, tuple):
            index = _drop_ellipsis(index)
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            return self._bags[index]
        if isinstance(index, slice):
            return self._same(self._bags[index], self._positions[index])
        positions = np.arange(len(self))[np.asarray(index, dtype=_index_dtype(index))]
        return self._same(
            [self._bags[i] for i in positions], [self._positions[i] for i in positions]
        )

    @staticmethod
    def _same(bags: list[Bag], positions: list[int]) -> BagSequence:
        """Sequence of bags that were checked before; ids may repeat, as in a bootstrap."""
        sequence = object.__new__(BagSequence)
        sequence._bags, sequence._positions = bags, positions
        return sequence

    def __repr__(self) -> str:
        first = f", first {self._bags[0]!r}" if self._bags else ""
        return f"BagSequence of {len(self)} bags{first}"

    def _repr_html_(self) -> str:
        """Number of bags and patients, and the first bags, for notebooks; no file is opened."""
        shown = self._bags[:_SHOWN]
        rows = [(bag.bag_id, bag.patient_id, _where(bag)) for bag in shown]
        table = pd.DataFrame(rows, columns=["bag_id", "patient_id", "source"]).fillna("")
        more = f"<p>and {len(self) - len(shown)} more</p>" if len(self) > len(shown) else ""
        n_patients = len({bag.patient_id for bag in self._bags} - {None})
        said = f"<p>BagSequence of {len(self)} bags, {n_patients} patients</p>"
        return f"{said}{table.to_html(index=False)}{more}"


def _where(bag: Bag) -> str:
    """The file of a bag, or the size of what is in memory."""
    return str(bag._source) if bag.is_lazy else " x ".join(map(str, bag._source.shape))


def is_graph(item: Any) -> bool:
    """Whether `item` is a torch-geometric ``Data`` or alike."""
    return hasattr(item, "x") and hasattr(item, "edge_index") and hasattr(item, "keys")


def positions_of(graph: Any) -> tuple[str | None, Any]:
    """Name and values of the positions of a ``Data``, which tools name in several ways."""
    for name in POSITIONS:
        if (values := getattr(graph, name, None)) is not None:
            return name, values
    return None, None


def _is_bag_like(item: Any) -> bool:
    if isinstance(item, Bag) or is_graph(item):
        return True
    if isinstance(item, tuple):
        return len(item) == 2 and np.ndim(item[0]) == 2
    ndim = len(getattr(item, "shape", ()))
    if isinstance(item, list) and item and isinstance(item[0], list):
        ndim = 2
    return ndim >= 2


def is_bag_list(X: Any) -> bool:
    """Whether `X` is a list of bag-like items rather than a table of numbers."""
    if not isinstance(X, list | tuple) and not (isinstance(X, np.ndarray) and X.dtype == object):
        return False
    return any(_is_bag_like(item) for item in X)


def _read(values: Any, name: str) -> NDArray:
    try:
        return to_numpy(values)
    except ValueError as error:
        raise BagError(f"{name} is ragged or not numeric: {error}") from error


def _as_bag(item: Any, position: int) -> Bag:
    if isinstance(item, Bag):
        return item
    if is_graph(item):
        ids = {k: item[k] for k in ("bag_id", "patient_id") if k in item}
        return Bag(item.x, positions_of(item)[1], edge_index=item.edge_index, **ids)
    if isinstance(item, tuple):
        if len(item) != 2:
            raise BagError(
                f"Bag {position} is a tuple of {len(item)} parts, expected (features, coords)."
            )
        return Bag(item[0], item[1])
    return Bag(_read(item, f"Bag {position}") if isinstance(item, list) else item)


def refuse_other_containers(X: Any) -> None:
    """Raise for dicts, Series and lists of paths, with the call that makes bags of them."""
    kind, remedy = type(X).__name__, ""
    if isinstance(X, Mapping) and not sparse.issparse(X):  # a dok_array is a dict, too
        remedy = "as_bags(list(X.values()), bag_ids=list(X))"
    elif isinstance(X, pd.Series) and X.dtype == object:
        remedy = "as_bags(X.tolist(), bag_ids=X.index)"
    elif isinstance(X, str | PathLike):
        remedy = "read_bags(X)"
    elif isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1):
        first = X[0] if len(X) else None
        if isinstance(first, PathLike) or (isinstance(first, str) and _is_path(first)):
            kind, remedy = f"{kind} of paths", "read_bags(X)"
    elif isinstance(X, Bag) or is_graph(X):
        raise BagError(f"X is a single {kind}, expected a sequence: pass [bag].")
    elif X is None or isinstance(X, Iterator | Set):
        remedy = "list(X)" if isinstance(X, Iterator) else "a list of bags"
    if remedy:
        raise BagError(f"X is a {kind}, expected bags. Pass {remedy}.")


def refuse_other_elements(X: Any) -> None:
    """Raise for a list with elements that are no bags, or tables with columns in another order."""
    if not isinstance(X, list | tuple):
        return
    for i, item in enumerate(X):
        parts = item[:3] if isinstance(item, list | tuple) and not _is_bag_like(item) else []
        holds_arrays = any(len(getattr(part, "shape", ())) > 1 for part in parts)
        no_array = isinstance(item, str | Mapping | None) or hasattr(item, "obs_names")
        if (no_array and not sparse.issparse(item)) or holds_arrays:
            raise BagError(
                f"Element {i} of X is a {type(item).__name__}, expected a Bag, an array "
                "(instances, features), or a tuple of two, (features, coords)."
            )
    frames = [(i, item) for i, item in enumerate(X) if isinstance(item, pd.DataFrame)]
    for i, frame in frames[1:]:
        first, columns = frames[0]
        if not frame.columns.equals(columns.columns):
            raise BagError(
                f"Element {i} of X has the columns {first_few(frame.columns)}, element {first} has "
                f"{first_few(columns.columns)}. Bring them into one order, e.g. frame[columns]."
            )


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or normalise_id(text) != text


def as_bags(X: Any, *, bag_ids: Any = None, patient_ids: Any = None) -> BagSequence:
    """Return `X` as a `BagSequence`, without reading a file.

    Parameters
    ----------
    X : BagSequence; list of Bag, of arrays, of (features, coords) or of PyG ``Data``; array of \
shape (n_bags, n_instances, n_features); array of shape (n_bags, n_features) (bags of one instance)
        The index of a DataFrame holds patient ids, unless it counts the rows.
    bag_ids, patient_ids : array-like of shape (n_bags,), optional
        Ids for bags that have none, by which omics is joined and splits are grouped. A missing one
        is None.

    Returns
    -------
    BagSequence

    Raises
    ------
    BagError
        If `X` is none of these, there is another number of ids, or a bag has another id already.

    Examples
    --------
    >>> import numpy as np
    >>> as_bags([np.ones((2, 3)), (np.ones((4, 3)), np.zeros((4, 2)))])
    BagSequence of 2 bags, first Bag(2 instances x 3 features)
    >>> as_bags(np.ones((2, 5, 3)), patient_ids=["P1", "P2"])[1]
    Bag(patient='P2', 5 instances x 3 features)
    """
    if bag_ids is not None or patient_ids is not None:
        return _with_ids(as_bags(X), bag_ids, patient_ids)
    if isinstance(X, BagSequence):
        return X
    refuse_other_containers(X)
    refuse_other_elements(X)
    if is_bag_list(X):
        return BagSequence(_as_bag(item, i) for i, item in enumerate(X))
    array = _read(X, f"X, a {type(X).__name__},")
    if array.ndim == 3:
        return BagSequence(Bag(features) for features in array)
    if array.ndim == 2:
        rows, patients = BagSequence(Bag(row[None]) for row in array), patients_in_index(X)
        return rows if patients is None else _with_ids(rows, None, patients)
    raise BagError(
        f"Cannot read bags from {type(X).__name__} of shape {array.shape}. Expected a "
        "BagSequence, a list of bags, or an array with two or three dimensions."
    )


def patients_in_index(X: Any) -> list[Any] | None:
    """Patient ids of the rows of a DataFrame, its index; None if that counts the rows."""
    if not isinstance(X, pd.DataFrame) or X.index.nlevels > 1 or counts_rows(X.index):
        return None
    return X.index.tolist()


def _with_ids(bags: BagSequence, bag_ids: Any, patient_ids: Any) -> BagSequence:
    """The bags with these ids, which may not contradict those that they have."""
    given = {"bag_ids": bag_ids, "patient_ids": patient_ids}
    columns = {}
    for name, ids in given.items():
        columns[name] = [None] * len(bags) if ids is None else list(ids)
        if len(columns[name]) != len(bags):
            raise BagError(f"{name} has {len(columns[name])} ids for {len(bags)} bags.")
    renamed = [bag.with_ids(*ids) for bag, *ids in zip(bags, *columns.values(), strict=True)]
    for old, new in zip(bags, renamed, strict=True):
        for kind in ("bag_id", "patient_id"):
            if getattr(old, kind) not in (None, getattr(new, kind)):
                raise BagError(
                    f"{old.name} has {kind}={getattr(old, kind)!r} already, got "
                    f"{getattr(new, kind)!r}."
                )
    return BagSequence(renamed)
