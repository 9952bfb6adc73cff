"""A bag: the patch features of one slide, in memory or in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..exceptions import BagError
from .arrays import (
    BagArrays,
    check_coords,
    check_edges,
    check_features,
    empty_instances,
    keep_instances,
    map_features,
    report_empty,
    to_numpy,
)
from .ids import normalise_id

NO_TABLE = (
    "Tools that make one table of X, as StandardScaler and BaggingClassifier do, cannot take bags: "
    "put InstanceTransformer(StandardScaler()) or BagPooling() before the classifier, or use "
    "VotingClassifier, StackingClassifier or n_models= for ensembles."
)


@dataclass(frozen=True)
class BagInfo:
    """Format, keys and geometry of a bag.

    Attributes
    ----------
    format : str
        "trident", "momkd", "clam", "stamp", "hest", "pt", "slideflow", "pyg", "anndata", "npy",
        "npz", "safetensors", "parquet", "zarr", or "memory".
    keys : tuple of str
        Datasets from which it is read, and by which its format was recognised.
    unit : str or None
        "level-0 px" or "um"; None without coordinates.
    anchor : {"top-left", "centre"}
        The point of a patch that its coordinates name.
    patch_size : float or None
        Width of a patch in `unit`.
    encoder : str or None
        Name of the encoder, where the file has it.
    magnification : float or None
        Magnification at which the patches were encoded.
    patch_pixels : float or None
        Width of a patch in pixels, as it was encoded.
    feature_type : str or None
        What a row describes, such as "tile" or "slide".

    Examples
    --------
    >>> from sk_momkd import Bag
    >>> print(Bag([[1.0, 2.0]], coords=[[0, 0]]).info)
    memory; top-left in level-0 px
    """

    format: str
    keys: tuple[str, ...] = ()
    unit: str | None = None
    anchor: str = "top-left"
    patch_size: float | None = None
    encoder: str | None = None
    magnification: float | None = None
    patch_pixels: float | None = None
    feature_type: str | None = None

    @property
    def patch_size_level0(self) -> float | None:
        """Width of a patch in level-0 pixels; None where it is not known in this unit."""
        return self.patch_size if self.unit == "level-0 px" else None

    def __str__(self) -> str:
        parts = [f"{self.format}: {', '.join(self.keys)}" if self.keys else self.format]
        if self.unit is not None:
            size = "" if self.patch_size is None else f", patches of {self.patch_size:g}"
            parts.append(f"{self.anchor} in {self.unit}{size}")
        parts += [f"{self.magnification:g}x"] if self.magnification else []
        parts += [self.encoder] if self.encoder else []
        return "; ".join(parts)


class BagSource(Protocol):
    """What a lazy bag is read from, such as a file."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self) -> BagArrays: ...


def _is_source(values: Any) -> TypeGuard[BagSource]:
    """Whether `values` can be read later; does not open a file."""
    return callable(getattr(type(values), "read", None))


class BagBlocks(NamedTuple):
    """An open bag; `read` yields its checked features from the start, block by block."""

    frame: BagArrays  # all but the features, which are (n_instances, 0)
    shape: tuple[int, int]
    read: Callable[[], Iterator[NDArray]]


def _blocks(rows: Any, n: int, size: int, name: str, *, constant: bool) -> Iterator[NDArray]:
    fills = {0.0, getattr(rows, "value_of_fill", 0.0)}  # what HDF5 reads where nothing was written
    empty: dict[float, list[NDArray]] = {fill: [] for fill in fills if not constant}
    for start in range(0, n, size):
        stop = min(start + size, n)
        part = name if n <= size else f"{name}, instances {start} to {stop - 1}"
        block = check_features(rows[start:stop], part)
        for fill, found in empty.items():
            found.append(start + empty_instances(block, fill))
        yield block
    for fill, found in empty.items():
        report_empty(np.concatenate(found), rows.shape, name, fill)


class Bag:
    """Patch features of one slide, with coordinates and ids where they are known.

    Parameters
    ----------
    features : array-like of shape (n_instances, n_features), or BagSource
        A `BagSource` (a file) is read each time the content is needed and not kept.
    coords : array-like of shape (n_instances, 2), optional
        Level-0 pixels, top-left corner (x, y).
    edge_index : array-like of shape (2, n_edges), optional
        Stored graph: row 0 holds the sending instances, row 1 the receiving ones.
    bag_id, patient_id : str, optional
        Ids of slide and patient. Omics is joined by them, and splits are grouped by patient. They
        are kept in one form: without outer spaces, folders, file suffixes, and the .0 of numbers.
    allow_constant : bool, default=False
        Whether features may all be zero. Otherwise such a bag raises, and zero instances warn.

    Raises
    ------
    BagError
        On :meth:`load`, when the bag is empty, not finite, or all zero, or its parts disagree in
        length.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag
    >>> Bag(np.ones((3, 4)), coords=[[0, 0], [256, 0], [0, 256]], bag_id="S1", patient_id="P1")
    Bag('S1', patient='P1', 3 instances x 4 features, coords)
    """

    __slots__ = (
        *("_allow_constant", "_coords", "_edge_index", "_given", "_source", "_steps"),
        *("bag_id", "patient_id", "coded_label"),
    )

    def __init__(
        self,
        features: Any,
        coords: Any = None,
        *,
        edge_index: Any = None,
        bag_id: str | None = None,
        patient_id: str | None = None,
        allow_constant: bool = False,
    ) -> None:
        self._allow_constant = allow_constant
        self._source = features if _is_source(features) else to_numpy(features)
        self._coords = None if coords is None else to_numpy(coords)
        self._edge_index = None if edge_index is None else to_numpy(edge_index)
        self._steps: tuple[Callable[[BagArrays, str], BagArrays], ...] = ()
        # A missing or empty id stays missing; as a text it would be shared by all such patients.
        self.bag_id = None if pd.isna(bag_id) else normalise_id(bag_id) or None
        self.patient_id = None if pd.isna(patient_id) else normalise_id(patient_id) or None
        self._given = (str(bag_id), str(patient_id))
        self.coded_label: Any = None

    @property
    def name(self) -> str:
        """How error messages call the bag."""
        return "a bag without id" if self.bag_id is None else f"bag {self.bag_id!r}"

    @property
    def given_ids(self) -> tuple[str, str]:
        """Ids of slide and patient as they were given, as text."""
        return self._given

    @property
    def is_lazy(self) -> bool:
        """Whether the features are read from a file each time they are needed."""
        return not isinstance(self._source, np.ndarray)

    @property
    def source(self) -> BagSource | None:
        """What a lazy bag is read from; None for a bag in memory or a transformed one."""
        return None if self._steps or isinstance(self._source, np.ndarray) else self._source

    @property
    def slides(self) -> Sequence[Bag]:
        """Slides of a patient's bag in the order of ``slide_index``, or the slide's bag itself.

        The transforms of a patient's bag are part of its slides, which then read the whole patient.
        """
        slides = self.stored_slides
        as_stored = not self._steps and self._coords is None and self._edge_index is None
        if as_stored or not hasattr(self._source, "slides"):
            return slides
        return [slide.read_from(_SlideOfPatient(self, i)) for i, slide in enumerate(slides)]

    @property
    def stored_slides(self) -> Sequence[Bag]:
        """The slides without the transforms of a patient's bag: for their ids and headers."""
        return getattr(self._source, "slides", (self,))

    @property
    def info(self) -> BagInfo:
        """Format, keys, unit and patch size, from the header of a file."""
        if isinstance(self._source, np.ndarray):
            return BagInfo("memory", unit=None if self._coords is None else "level-0 px")
        describe = getattr(self._source, "info", None)  # optional in a BagSource
        return BagInfo("custom") if describe is None else describe()

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features), from the header of a file."""
        if self._steps:
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
        """Stored graph, of shape (2, n_edges), or None."""
        return self.load().edge_index

    def load(self, name: str | None = None, *, again: bool = False) -> BagArrays:
        """Read and check all arrays of the bag.

        Parameters
        ----------
        name : str, optional
            How errors call the bag; by default its id.
        again : bool, default=False
            The bag was loaded before: features of a file that must stay as it is, see
            :meth:`pinned`, are not checked once more. A change of the file raises either way.

        Returns
        -------
        BagArrays

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
        if again and getattr(self._source, "is_pinned", False):
            features = np.ascontiguousarray(features, dtype=np.float32)
        elif not self._may_be_constant(len(features := check_features(features, name))):
            report_empty(empty_instances(features), features.shape, name)
        n = len(features)
        coords, edges = check_coords(coords, n, name), check_edges(edges, n, name)
        arrays = BagArrays(features, coords, edges, slides)
        for step in self._steps:
            arrays = step(arrays, name)
        return arrays

    @contextmanager
    def opened(self, size: int, name: str | None = None) -> Iterator[BagBlocks | None]:
        """Open the bag and read its features in blocks.

        Parameters
        ----------
        size : int
            Instances per block.
        name : str, optional
            How errors call the bag; by default its id.

        Yields
        ------
        BagBlocks or None
            None for a bag that has to be read at once: one in memory, a transformed one, or one
            whose source cannot be opened.
        """
        name = name or self.name
        opened = getattr(self.source, "opened", None)
        if opened is None:
            yield None
            return
        with opened() as (rows, coords, edges, slides):
            n = rows.shape[0] if len(rows.shape) == 2 else 0
            if n == 0:
                check_features(rows[:], name)  # raises
            coords = check_coords(coords if self._coords is None else self._coords, n, name)
            edges = edges if self._edge_index is None else self._edge_index
            frame = BagArrays(np.empty((n, 0)), coords, check_edges(edges, n, name), slides)
            constant = self._may_be_constant(n)
            read = partial(_blocks, rows, n, size, name, constant=constant)
            yield BagBlocks(frame, rows.shape, read)

    def _may_be_constant(self, n_instances: int) -> bool:
        """Whether zero features are no sign of missing content.

        A row of a table, a bag of one instance in memory, may be zero; slides of a patient are
        checked one by one.
        """
        if self._allow_constant or hasattr(self._source, "slides"):
            return True
        if not self.is_lazy:
            return n_instances == 1
        return getattr(self._source, "allow_constant", False)

    def _described(self) -> str:
        try:
            return str(self.info)
        except BagError:
            return "unreadable"

    def map(self, transform: Callable[[NDArray], NDArray]) -> Self:
        """Bag whose features are transformed whenever they are read.

        Parameters
        ----------
        transform : callable
            Takes and returns features, an array of shape (n_instances, n_features).

        Returns
        -------
        Bag
        """
        return self._then(partial(map_features, transform))

    def filter(self, keep: Callable[[BagArrays], NDArray]) -> Self:
        """Bag of the instances for which `keep` is True whenever the bag is read.

        Coordinates are filtered as well, and a stored graph keeps its edges between the instances
        that stay.

        Parameters
        ----------
        keep : callable
            Takes the `BagArrays` and returns booleans of shape (n_instances,). If it drops all
            instances, reading the bag raises `BagError`.

        Returns
        -------
        Bag
        """
        return self._then(partial(keep_instances, keep))

    def with_ids(self, bag_id: Any = None, patient_id: Any = None) -> Self:
        """Bag with these ids; one that is None stays as it is.

        Parameters
        ----------
        bag_id, patient_id : str, optional

        Returns
        -------
        Bag
        """
        bag = self._copy()
        given = list(self._given)
        if not pd.isna(bag_id):
            bag.bag_id, given[0] = normalise_id(bag_id), str(bag_id)
        if not pd.isna(patient_id):
            bag.patient_id, given[1] = normalise_id(patient_id), str(patient_id)
        bag._given = (given[0], given[1])
        return bag

    def with_label(self, coded_label: Any) -> Self:
        """Bag that knows what its label was in a table.

        Parameters
        ----------
        coded_label : CodedLabel

        Returns
        -------
        Bag
        """
        bag = self._copy()
        bag.coded_label = coded_label
        return bag

    def __float__(self) -> float:
        raise BagError(f"{self.name} is no number. {NO_TABLE}")

    def pinned(self) -> Self:
        """Bag whose file must stay as it is now; reading it after a change raises.

        Returns
        -------
        Bag
        """
        pin = getattr(self._source, "pinned", None)
        return self if pin is None else self.with_source(pin())

    def with_source(self, source: BagSource) -> Self:
        """Bag whose features are read from another source; all else stays as it is.

        Parameters
        ----------
        source : BagSource

        Returns
        -------
        Bag
        """
        bag = self._copy()
        bag._source = source
        return bag

    def read_from(self, source: BagSource) -> Self:
        """Bag with these ids of which all else, also coordinates, is read from `source`.

        Parameters
        ----------
        source : BagSource

        Returns
        -------
        Bag
        """
        bag = self.with_source(source)
        bag._coords, bag._edge_index, bag._steps = None, None, ()
        return bag

    def _copy(self) -> Self:
        bag = object.__new__(type(self))
        for slot in Bag.__slots__:
            setattr(bag, slot, getattr(self, slot))
        return bag

    def _then(self, step: Callable[[BagArrays, str], BagArrays]) -> Self:
        bag = self._copy()
        bag._steps = (*self._steps, step)
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
        parts += ["transformed when read"] if self._steps else []
        return f"Bag({', '.join(parts)})"


class _SlideOfPatient:
    """What the transforms of a patient's bag leave of one of its slides, as the source of a bag."""

    def __init__(self, patient: Bag, number: int) -> None:
        self.patient, self.number = patient, number
        self.allow_constant = True  # the slide is checked when the patient is read

    @property
    def shape(self) -> tuple[int, int]:
        return self.read().features.shape

    def read(self) -> BagArrays:
        of_slide = keep_instances(self._mine, self.patient.load(), self._name)
        return of_slide._replace(slide_index=None)

    def _mine(self, arrays: BagArrays) -> NDArray:
        return np.asarray(arrays.slide_index) == self.number

    @property
    def _name(self) -> str:
        return self.patient.stored_slides[self.number].name

    def info(self) -> BagInfo:
        return self.patient.stored_slides[self.number].info

    def pinned(self) -> _SlideOfPatient:
        return _SlideOfPatient(self.patient.pinned(), self.number)

    def __str__(self) -> str:
        return f"{self._name} of {self.patient.name}"
