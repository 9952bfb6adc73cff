"""A contiguous copy of bag files on disk: files of one-row chunks become fast to read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import IO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagError, BagFileError
from .bag import Bag, BagArrays, check_features
from .formats import DAMAGE
from .info import BagInfo
from .readers import SlideFile
from .sequence import BagSequence


class CachedFile:
    """A slide file that is read once and from then on from its contiguous copy.

    The copy is named by a hash of the file's path, size, time of change, format and `dtype`, so
    a changed file gets a new one. It is written beside its place and moved there: two processes
    that build it at once each write a whole one, and the later replaces the equal earlier.
    """

    def __init__(self, file: SlideFile, folder: str, dtype: str) -> None:
        self.file, self.folder, self.dtype = file, folder, dtype

    def __str__(self) -> str:
        return f"{self.file}, cached"

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features)."""
        return self.file.shape

    def info(self) -> BagInfo:
        """What the file says about itself."""
        return self.file.info()

    def read(self) -> BagArrays:
        """The content of the copy; it is made, or made again where it is damaged."""
        place = self._place()
        try:
            return _load(place)
        except (*DAMAGE, BadZipFile):  # absent, or cut off by a full disk
            arrays = self._convert(self.file.read())
        _store(place, arrays)
        return arrays

    def _place(self) -> Path:
        try:
            stat = os.stat(self.file.path)
        except OSError as error:
            raise BagFileError(f"{self.file.path} does not exist.") from error
        source = os.path.realpath(self.file.path)
        key = (source, stat.st_size, stat.st_mtime_ns, self.file.format, self.dtype)
        return Path(self.folder) / hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()

    def _convert(self, arrays: BagArrays) -> BagArrays:
        features = check_features(arrays.features, str(self.file))
        with np.errstate(over="ignore"):
            small = features.astype(self.dtype)
        if not np.isfinite(small).all():
            raise BagError(
                f"{self.file}: features reach {np.abs(features).max():.4g}, too large for "
                f"{self.dtype}. Cache with dtype='float32'."
            )
        return arrays._replace(features=small)


def cache_bags(bags: BagSequence, folder: str | PathLike, *, dtype: str = "float16") -> BagSequence:
    """Bags that are read from contiguous copies in `folder`, made when a bag is first read.

    Tools write HDF5 in chunks of one patch, which is slow to read; a training run reads every bag
    each epoch.

    Parameters
    ----------
    bags : BagSequence
        Bags of files, as `read_bags` and `load_cohort` give them.
    folder : path
        Made where it does not exist; may be shared by several processes and cohorts.
    dtype : {"float16", "float32"}, default="float16"
        float16 halves the space and rounds features to three digits; float32 changes nothing.

    Returns
    -------
    BagSequence

    Raises
    ------
    BagError
        If a bag is not of a file, or `dtype` is another.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import cache_bags, read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=2, random_state=0).features)
    >>> cached = cache_bags(bags, mkdtemp(), dtype="float32")
    >>> bool((cached[0].features == bags[0].features).all())
    True
    """
    if dtype not in ("float16", "float32"):
        raise BagError(f"dtype must be 'float16' or 'float32', got {dtype!r}.")
    os.makedirs(folder, exist_ok=True)
    cached = []
    for i, bag in enumerate(bags):
        file = bag.source
        if not isinstance(file, SlideFile):
            raise BagError(f"{bags.name(i)} is not read from a file, so it cannot be cached.")
        source = CachedFile(file, os.fspath(folder), dtype)
        cached.append(Bag(source, bag_id=bag.bag_id, patient_id=bag.patient_id))
    return BagSequence(cached)


def _load(place: Path) -> BagArrays:
    """Features memory-mapped; the small parts beside them."""
    features = np.load(place.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    with np.load(place.with_suffix(".npz"), allow_pickle=False) as rest:
        parts: dict[str, NDArray] = {name: rest[name] for name in rest.files}
    return BagArrays(features, parts.get("coords"), parts.get("edge_index"))


def _store(place: Path, arrays: BagArrays) -> None:
    rest = {"coords": arrays.coords, "edge_index": arrays.edge_index}
    present = {name: values for name, values in rest.items() if values is not None}
    _replace(place.with_suffix(".npz"), lambda file: np.savez(file, **present))  # type: ignore[arg-type]
    _replace(place.with_suffix(".npy"), lambda file: np.save(file, arrays.features))


def _replace(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
