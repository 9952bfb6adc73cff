"""Bag files of any known tool: recognised, matched to slide ids, read when they are needed."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import pandas as pd
from numpy.typing import NDArray

from ..data.arrays import BagArrays
from ..data.bag import Bag, BagInfo
from ..data.sequence import BagSequence
from ..exceptions import BagFileError, CohortError
from ..messages import first_few
from .anndata_files import AnnDataBag
from .hdf5 import LAYOUTS, Hdf5Bag
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
BAG_SUFFIXES = tuple(_READERS)
_SLIDE_SUFFIXES = (*BAG_SUFFIXES, ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn")


@dataclass(frozen=True)
class SlideFile:
    """The features of one slide in a file, in any format of :func:`read_bags`.

    Nothing is opened until it is asked for, and every file is closed again, so that a bag of a
    file pickles as its path.

    Parameters
    ----------
    path : str
    format : str, default="auto"
        How to read it; "auto" looks at the suffix and the keys.
    """

    path: str
    format: str = "auto"

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features), from the header where the format has one."""
        return self._reader().shape()  # type: ignore[return-value]

    def read(self) -> BagArrays:
        """Features, coordinates and stored graph, unchecked; None for what is not there."""
        return self._reader().read()

    def opened(self) -> AbstractContextManager[BagArrays]:
        """Likewise, the features read as they are sliced where the format allows it (HDF5)."""
        reader = self._reader()
        return reader.opened() if isinstance(reader, Hdf5Bag) else nullcontext(reader.read())

    def coords(self) -> NDArray | None:
        """Coordinates alone, unchecked; of HDF5 without reading the features."""
        return self._reader().coords()

    def info(self) -> BagInfo:
        """What the file says about itself."""
        return self._reader().info()

    @property
    def parts(self) -> list[str]:
        """The files that :meth:`read` reads: itself, and slideflow's index."""
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
        return reader(self.path, self.format)


def read_bags(
    source: str | PathLike | Iterable[str | PathLike], *, format: str = "auto"
) -> BagSequence:
    """Bags of a folder, a file or a list of files; nothing is opened yet.

    Known are HDF5 of TRIDENT, of the MoMKD release (with its stored graph), of CLAM and of STAMP,
    public (1, N, D) feature sets, ``.pt`` of CLAM, TRIDENT, slideflow and torch-geometric, and
    ``.h5ad`` of LazySlide. ``bag.info`` says what a file was recognised as, by which keys.

    Parameters
    ----------
    source : path, or iterable of paths
        Of a folder, every file with a known suffix is a bag.
    format : str, default="auto"
        One of ``FORMATS``, to insist on a format.

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
    if isinstance(source, str | PathLike):
        paths = bag_files(source) if Path(source).is_dir() else [Path(source)]
    else:
        paths = [Path(path) for path in source]
    if not paths:
        raise BagFileError(f"{source} holds no bag file ({', '.join(BAG_SUFFIXES)}).")
    stems: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise BagFileError(f"{path} does not exist, or is no file.")
        if (stem := slide_stem(path.name)) in stems:
            raise BagFileError(
                f"Two files are of slide {stem!r}: {stems[stem]} and {path}. Keep one."
            )
        stems[stem] = path
    return BagSequence(
        Bag(SlideFile(fspath(path), format), bag_id=stem) for stem, path in stems.items()
    )


def bag_files(folder: str | PathLike) -> list[Path]:
    """Files of a folder that may be bags, by name; not hidden ones, as macOS' ``._S1.h5``."""
    named = (p for p in Path(folder).iterdir() if p.suffix.lower() in BAG_SUFFIXES)
    return sorted(p for p in named if not p.name.startswith(".") and not p.is_dir())


def slide_stem(name: str) -> str:
    """A slide id without file suffixes; other dots, as before a UUID, belong to the id.

    Accents are written as one character: file systems may part them from their letters.
    """
    stem = unicodedata.normalize("NFC", name)
    while stem.lower().endswith(_SLIDE_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    return stem


WITHOUT_UUID = "name without UUID"
_UUID = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


def find_files(folder: Path) -> dict[str, str]:
    """Path of each bag file of `folder` by its name without suffix.

    Raises
    ------
    CohortError
        If there is no such folder, or two files are of one slide.
    """
    if not folder.is_dir():
        raise CohortError(f"{folder} is not a folder with feature files (<slide_id>.h5).")
    files: dict[str, str] = {}
    for path in bag_files(folder):
        stem = slide_stem(path.name)
        if stem in files:
            raise CohortError(
                f"{folder} has two files for slide {stem!r}: {Path(files[stem]).name!r} and "
                f"{path.name!r}. Keep one."
            )
        files[stem] = str(path)
    return files


def match_files(slide_ids: Iterable[str], files: Mapping[str, str]) -> pd.DataFrame:
    """File of each slide: by its id, else by the name that either side has without its UUID.

    GDC names slides ``TCGA-A2-A04P-01Z-00-DX1.<UUID>``; tables and tools keep or drop the tail.
    Two different UUIDs never match.

    Parameters
    ----------
    slide_ids : iterable of str
    files : mapping
        Path by stem, as :func:`find_files` gives it.

    Returns
    -------
    DataFrame
        One row per slide: ``stem`` (a key of `files`), ``file``, and ``matched_by`` ("id" or
        "name without UUID"); None where a slide has no file.

    Raises
    ------
    CohortError
        If several files could be a slide's, or several slides have one file; names them.
    """
    tailed: dict[str, list[str]] = defaultdict(list)
    for stem in files:
        if (bare := _UUID.sub("", stem)) != stem:
            tailed[bare].append(stem)
    rows: list[tuple[str | None, ...]] = []
    for slide in slide_ids:
        stem, how = slide_stem(slide), "id"
        if stem not in files:
            bare, how = _UUID.sub("", stem), WITHOUT_UUID
            found = tailed[stem] if bare == stem else [bare] if bare in files else []
            if len(found) > 1:
                raise CohortError(
                    f"Slide {slide!r} has no file of its name, and {len(found)} that differ from "
                    f"it by a UUID: {first_few(Path(files[f]).name for f in found)}. Write the "
                    "UUID in the table, or remove the files that are not meant."
                )
            if not found:
                rows.append((slide, None, None, None))
                continue
            stem = found[0]
        rows.append((slide, stem, files[stem], how))
    matches = pd.DataFrame(rows, columns=["slide_id", "stem", "file", "matched_by"], dtype=object)
    shared = matches[matches["file"].notna() & matches["file"].duplicated(keep=False)]
    if len(shared):
        raise CohortError(
            f"Several slide ids mean the same file: {first_few(shared['slide_id'])} (file "
            f"{Path(shared['file'].iloc[0]).name!r})."
        )
    return matches.drop(columns="slide_id")
