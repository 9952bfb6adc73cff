"""Bag files of all known tools: the format is recognised, the content read when needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..data.arrays import BagArrays, empty_instances, report_empty
from ..data.bag import Bag, BagInfo
from ..data.sequence import BagSequence
from ..exceptions import BagError, BagFileError
from .anndata_files import AnnDataBag
from .array_files import ArrayBag
from .hdf5 import LAYOUTS, Hdf5Bag
from .local_files import FileState, file_state, require_regular, require_unchanged
from .recent_files import RecentFiles
from .slide_files import BAG_SUFFIXES, PICKLES, bag_files, files_by_slide, nothing_found
from .torch_files import TorchBag
from .zarr_stores import is_anndata_store

_READERS: dict[str, type[Hdf5Bag | TorchBag | AnnDataBag | ArrayBag]] = {
    ".h5": Hdf5Bag,
    ".hdf5": Hdf5Bag,
    ".pt": TorchBag,
    ".pth": TorchBag,
    ".h5ad": AnnDataBag,
    **dict.fromkeys((".npy", ".npz", ".safetensors", ".parquet", ".zarr"), ArrayBag),
}
_FORMATS_OF = {
    Hdf5Bag: {layout.format for layout in LAYOUTS},
    TorchBag: {"pt", "slideflow", "pyg"},
    AnnDataBag: {"anndata"},
    ArrayBag: {"npy", "npz", "safetensors", "parquet", "zarr"},
}
_INFO: dict[SlideFile, tuple[tuple, BagInfo]] = {}  # of unchanged files, which fits ask again
_RECENT = RecentFiles()
FORMATS = ("auto", *sorted(set().union(*_FORMATS_OF.values())))


@dataclass(frozen=True)
class SlideFile:
    """Features of one slide in a file, in any format that :func:`read_bags` reads.

    The file is opened for each request and closed again, so a bag of a file pickles as its path.

    Parameters
    ----------
    path : str
    format : str, default="auto"
        How to read it; "auto" decides by the suffix and the keys.
    allow_external : bool, default=False
        Whether content of other files is read, as in :func:`read_bags`.
    allow_constant, allow_mixed : bool, default=False
        As in :func:`read_bags`.
    state : tuple or None, default=None
        Size, time of change and inode of each part that it must still have when it is read.

    Attributes
    ----------
    shape : tuple of int
        (n_instances, n_features), from the header where the format has one.
    parts : list of str
        The files that :meth:`read` reads: `path`, and slideflow's index.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import Bag, SlideFile, simulate_cohort
    >>> folder = simulate_cohort(mkdtemp(), n_patients=1, random_state=0).features
    >>> file = SlideFile(str(folder / "SIM-000-01Z-00-DX1.h5"))
    >>> Bag(file, bag_id="SIM-000").n_features
    64
    """

    path: str
    format: str = "auto"
    allow_external: bool = False
    allow_constant: bool = False
    allow_mixed: bool = False
    state: tuple[FileState, ...] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # With the state of the file, joblib's hashes, as of Pipeline(memory=), change with it.
        try:
            size_and_time = file_state(self.path)[:2]
        except OSError:
            return self.__dict__.copy()
        return self.__dict__ | {"hashed_with": size_and_time}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: value for k, value in state.items() if k != "hashed_with"})

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features), from the header where the format has one."""
        return self._reader().shape()  # type: ignore[return-value]

    def read(self) -> BagArrays:
        """Read features, coordinates and stored graph, unchecked; None for what is absent.

        Returns
        -------
        BagArrays
        """
        if self.allow_external:
            return self._read()[0]
        self.require_unchanged()
        return _RECENT.read(self, self.parts, self._read)

    def _read(self) -> tuple[BagArrays, bool]:
        """The arrays, and whether they may be kept: not with another fill value than 0."""
        with self.opened() as arrays:
            features, fill = arrays.features[:], getattr(arrays.features, "value_of_fill", 0)
        if fill and not self.allow_constant and features.ndim == 2 and features.size:
            report_empty(empty_instances(features, fill), features.shape, self.path, fill)
        return arrays._replace(features=features), not fill

    def pinned(self) -> SlideFile:
        """The same file, which must stay as it is now, or was when it was pinned before.

        A missing file is returned as it is.

        Returns
        -------
        SlideFile
        """
        if self.is_pinned:  # a fold of an evaluation must not begin anew
            return self
        try:
            return replace(self, state=tuple(file_state(part) for part in self.parts))
        except (OSError, BagError):
            return self

    @property
    def is_pinned(self) -> bool:
        """Whether the file must stay as it was when it was pinned."""
        return self.state is not None

    def require_unchanged(self) -> None:
        """Raise if the file was pinned and is another one now."""
        if self.state is None:
            return
        parts = self.parts
        if len(parts) != len(self.state):
            raise BagFileError(
                f"{self.path} changed while it was in use: it had {len(self.state)} files, and "
                f"has {len(parts)} now."
            )
        for part, state in zip(parts, self.state, strict=True):
            require_unchanged(part, state)

    @contextmanager
    def opened(self) -> Iterator[BagArrays]:
        """Like `read`, but an HDF5 file stays open, and its features are read as they are sliced.

        Yields
        ------
        BagArrays
        """
        self.require_unchanged()
        reader = self._reader()
        with reader.opened() if isinstance(reader, Hdf5Bag) else nullcontext(reader.read()) as bag:
            yield bag
            self.require_unchanged()

    def coords(self) -> NDArray | None:
        """Read the coordinates, unchecked; for HDF5 without reading the features.

        Returns
        -------
        ndarray of shape (n_instances, 2) or None
        """
        return self._reader().coords()

    def some_coords(self) -> tuple[tuple[int, ...], tuple[int, ...], list[NDArray]] | None:
        """Shapes of features and coordinates and runs of these, where that is quick; else None.

        Returns
        -------
        tuple or None
        """
        reader = self._reader()
        return reader.some_coords() if isinstance(reader, Hdf5Bag) else None

    def info(self) -> BagInfo:
        """Format, keys, unit and patch size, as far as the file holds them.

        Returns
        -------
        BagInfo
        """
        reader = self._reader()
        try:
            states = tuple(file_state(p) if os.path.exists(p) else None for p in reader.stated_in)
        except OSError:
            return reader.info()
        known = _INFO.get(self)
        if known is None or known[0] != states:
            known = _INFO[self] = (states, reader.info())
        return known[1]

    @property
    def parts(self) -> list[str]:
        """The files that :meth:`read` reads: `path`, and slideflow's index."""
        return self._reader().parts

    def __str__(self) -> str:
        return Path(self.path).name

    def _reader(self) -> Hdf5Bag | TorchBag | AnnDataBag | ArrayBag:
        reader = _READERS.get(Path(self.path).suffix.lower())
        if reader is ArrayBag and is_anndata_store(self.path):
            reader = AnnDataBag
        if reader is None:
            why = " Pickles may run any code." if self.path.lower().endswith(PICKLES) else ""
            known = ", ".join(_READERS)
            raise BagFileError(f"{self.path}: the suffix must be one of {known}.{why}")
        if self.format != "auto" and self.format not in _FORMATS_OF[reader]:
            raise BagFileError(
                f"{self.path}: format={self.format!r} is not for this suffix; it takes "
                f"{sorted(_FORMATS_OF[reader])}."
            )
        options = {"allow_external": self.allow_external}
        if issubclass(reader, ArrayBag | AnnDataBag):
            options["allow_constant"] = self.allow_constant
        return reader(self.path, self.format, **options)


def read_bags(
    source: str | PathLike | Iterable[str | PathLike],
    *,
    format: str = "auto",
    allow_external: bool = False,
    allow_constant: bool = False,
    allow_mixed: bool = False,
) -> BagSequence:
    """Bags of a folder, a file or a list of files, which are opened when needed.

    The formats are HDF5 files of TRIDENT, the MoMKD release (with its stored graph), CLAM and
    STAMP, public (1, N, D) feature sets and HEST's embeddings; ``.pt`` files of CLAM, TRIDENT,
    slideflow and torch-geometric, or with a dict of tensors; ``.h5ad`` files of LazySlide; and
    named arrays in ``.npy``, ``.npz``, ``.safetensors``, ``.parquet`` and ``.zarr``: features (or
    feats, embeddings, x), coords (or pos, xy; columns x and y in parquet) and edge_index. Pickles
    are refused. ``bag.info`` holds the recognised format of a file, and what the file states.

    Parameters
    ----------
    source : path, or iterable of paths
        In a folder, every file with a known suffix is a bag. If it holds none, the only folder
        below it that does is read, as in a folder of TRIDENT.
    format : str, default="auto"
        One of ``FORMATS``; files of another format are refused.
    allow_external : bool, default=False
        Whether content outside the named files is read: links to files outside the folder, and
        HDF5 files whose datasets are in other files (external links, external storage, virtual
        datasets). By default such files are refused, because a file from elsewhere could name any
        file that you can read.
    allow_constant : bool, default=False
        Whether the features of a slide may all be zero. By default reading such a slide raises,
        and zero instances warn, because HDF5 reads zeros where content is missing.
    allow_mixed : bool, default=False
        Whether the slides may be used with others whose files state another encoder, magnification,
        patch size, unit or type of features. By default `fit` refuses bags that disagree, and
        prediction refuses bags that disagree with those for training.

    Returns
    -------
    BagSequence
        In the order of the file names; ``bag_id`` is the name without its suffix.

    Raises
    ------
    BagFileError
        If there is no such file, a folder holds none, or two files are of one slide.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=2, random_state=0).features)
    >>> bags.ids
    array(['SIM-000-01Z-00-DX1', 'SIM-001-01Z-00-DX1'], dtype=object)
    >>> print(bags[0].info)
    trident: features, coords; top-left in level-0 px, patches of 512; 20x
    """
    if format not in FORMATS:
        raise BagFileError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if not isinstance(source, str | PathLike):
        paths = [Path(path) for path in source]
    elif Path(source).is_dir() and Path(source).suffix.lower() != ".zarr":
        paths = bag_files(source, BagFileError)
    else:
        paths = [Path(source)]
    if not paths:
        known = ", ".join(BAG_SUFFIXES)
        hint = nothing_found(source) if isinstance(source, str | PathLike) else ""
        raise BagFileError(f"{source} holds no bag file ({known}).{hint}")
    for path in paths:
        if not path.is_file() and path.suffix.lower() != ".zarr":
            require_regular(path, allow_external=True)
    return BagSequence(
        Bag(
            SlideFile(fspath(path), format, allow_external, allow_constant, allow_mixed),
            bag_id=slide,
        )
        for slide, path in files_by_slide(paths, BagFileError).items()
    )
