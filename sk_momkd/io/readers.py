"""Bag files of all known tools: the format is recognised, the content read when needed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..data.arrays import BagArrays
from ..data.bag import Bag, BagInfo
from ..data.sequence import BagSequence
from ..exceptions import BagFileError
from .anndata_files import AnnDataBag
from .hdf5 import LAYOUTS, Hdf5Bag
from .local_files import file_state
from .slide_files import BAG_SUFFIXES, feature_folder, files_by_slide, visible_files
from .torch_files import TorchBag

_READERS: dict[str, type[Hdf5Bag | TorchBag | AnnDataBag]] = {
    ".h5": Hdf5Bag,
    ".hdf5": Hdf5Bag,
    ".pt": TorchBag,
    ".pth": TorchBag,
    ".h5ad": AnnDataBag,
}
_FORMATS_OF = {
    Hdf5Bag: {layout.format for layout in LAYOUTS},
    TorchBag: {"pt", "slideflow", "pyg"},
    AnnDataBag: {"anndata"},
}
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
    allow_constant : bool, default=False
        Whether features may all be zero, as in :func:`read_bags`.

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

    def __getstate__(self) -> dict[str, Any]:
        # With the state of the file, joblib's hashes, as of Pipeline(memory=), change with it.
        try:
            size_and_time = file_state(self.path)[:2]
        except OSError:
            return self.__dict__.copy()
        return self.__dict__ | {"state": size_and_time}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: value for k, value in state.items() if k != "state"})

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
        return self._reader().read()

    def opened(self) -> AbstractContextManager[BagArrays]:
        """Like `read`, but an HDF5 file stays open, and its features are read as they are sliced.

        Returns
        -------
        context manager of BagArrays
        """
        reader = self._reader()
        return reader.opened() if isinstance(reader, Hdf5Bag) else nullcontext(reader.read())

    def coords(self) -> NDArray | None:
        """Read the coordinates, unchecked; for HDF5 without reading the features.

        Returns
        -------
        ndarray of shape (n_instances, 2) or None
        """
        return self._reader().coords()

    def info(self) -> BagInfo:
        """Format, keys, unit and patch size, as far as the file holds them.

        Returns
        -------
        BagInfo
        """
        return self._reader().info()

    @property
    def parts(self) -> list[str]:
        """The files that :meth:`read` reads: `path`, and slideflow's index."""
        return self._reader().parts

    def __str__(self) -> str:
        return Path(self.path).name

    def _reader(self) -> Hdf5Bag | TorchBag | AnnDataBag:
        reader = _READERS.get(Path(self.path).suffix.lower())
        if reader is None:
            raise BagFileError(f"{self.path}: the suffix must be one of {', '.join(_READERS)}.")
        if self.format != "auto" and self.format not in _FORMATS_OF[reader]:
            raise BagFileError(
                f"{self.path}: format={self.format!r} is not for this suffix; it takes "
                f"{sorted(_FORMATS_OF[reader])}."
            )
        return reader(self.path, self.format, allow_external=self.allow_external)


def read_bags(
    source: str | PathLike | Iterable[str | PathLike],
    *,
    format: str = "auto",
    allow_external: bool = False,
    allow_constant: bool = False,
) -> BagSequence:
    """Bags of a folder, a file or a list of files, which are opened when needed.

    The formats are HDF5 files of TRIDENT, the MoMKD release (with its stored graph), CLAM and
    STAMP, public (1, N, D) feature sets, ``.pt`` files of CLAM, TRIDENT, slideflow and
    torch-geometric, and ``.h5ad`` files of LazySlide. ``bag.info`` holds the recognised format
    of a file and the keys by which it was recognised.

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
    trident: features, coords; top-left in level-0 px, patches of 512
    """
    if format not in FORMATS:
        raise BagFileError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if not isinstance(source, str | PathLike):
        paths = [Path(path) for path in source]
    elif Path(source).is_dir():
        paths = visible_files(feature_folder(source, BagFileError), BAG_SUFFIXES)
    else:
        paths = [Path(source)]
    if not paths:
        raise BagFileError(f"{source} holds no bag file ({', '.join(BAG_SUFFIXES)}).")
    for path in paths:
        if not path.is_file():
            raise BagFileError(f"{path} does not exist, or is not a file.")
    return BagSequence(
        Bag(SlideFile(fspath(path), format, allow_external, allow_constant), bag_id=slide)
        for slide, path in files_by_slide(paths, BagFileError).items()
    )
