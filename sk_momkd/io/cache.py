"""Contiguous copies of bag files, because files in one-row chunks are slow to read."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays, check_features
from ..data.bag import Bag, BagInfo, BagSource
from ..data.patient import PatientSource
from ..data.sequence import BagSequence
from ..exceptions import BagError, BagFileError
from .atomic import atomic_write
from .read_errors import READ_ERRORS
from .readers import SlideFile

_STORED_AS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
_AT_REST = 2 * 10**9  # ns; file systems note times to two seconds at worst


def _as_numbers(arrays: BagArrays, dtype: str) -> BagArrays:
    """Arrays with features as numpy floats; bfloat16 is the upper half of float32."""
    if dtype != "bfloat16":
        return arrays
    bits = np.left_shift(arrays.features, np.uint32(16), dtype=np.uint32)
    return arrays._replace(features=bits.view(np.float32))


def _load(place: Path, dtype: str) -> BagArrays:
    """Features memory-mapped, the small parts in memory."""
    with np.load(f"{place}.npz", allow_pickle=False) as rest:
        parts: dict[str, NDArray] = {name: rest[name] for name in rest.files}
    shape = tuple(parts["shape"].tolist())
    features = np.memmap(f"{place}.raw", _STORED_AS[dtype], "r", shape=shape)
    if os.path.getsize(f"{place}.raw") != features.nbytes or set(parts) != {*parts["names"]}:
        raise ValueError(f"{place} is incomplete.")
    arrays = BagArrays(features, parts.get("coords"), parts.get("edge_index"))
    return _as_numbers(arrays, dtype)


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part, open(part, "wb") as file:
            write(file)
    except OSError as error:
        raise BagFileError(
            f"The copy {path} cannot be written: {error}. Free or unlock the folder, or read the "
            "bags without cache_bags."
        ) from error


def _store(place: Path, arrays: BagArrays) -> None:
    rest = {"coords": arrays.coords, "edge_index": arrays.edge_index}
    parts = {name: values for name, values in rest.items() if values is not None}
    parts["shape"] = np.array(arrays.features.shape)
    parts["names"] = np.array([*parts, "names"])  # reveals a part that was lost
    _replace(Path(f"{place}.npz"), lambda file: np.savez(file, **parts))  # type: ignore[arg-type]
    _replace(Path(f"{place}.raw"), lambda file: file.write(arrays.features.tobytes()))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _noted(digest: str, key: str) -> str:
    """Content of a note: the digest, and a checksum that reveals damage or a mix-up of notes."""
    return f"{digest} {_hash(f'{digest} {key}'.encode())}\n"


def _hash_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise BagFileError(f"{path} cannot be read: {error}") from error


def _to_bfloat16(features: NDArray) -> NDArray:
    """The upper 16 bits of float32, rounded to nearest, ties to even."""
    bits = features.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


class CachedFile:
    """A slide file that is copied when it is first read; later the copy is read.

    The copy is named by a hash of the file's content, its format and `dtype`: a moved or copied
    cohort finds its copies, a changed file gets a new one. The hash is stored under the file's
    path, size, inode and times, so that a file is not hashed each time it is read. Every write is
    atomic: if two processes write a copy at once, the later one replaces an equal copy.
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
        """Format, keys, unit and patch size of the file."""
        return self.file.info()

    def read(self) -> BagArrays:
        """Read the copy, which is written first if it is absent or damaged."""
        states = self._states()
        place = Path(self.folder) / f"{self._digest(states)}.{self.file.format}.{self.dtype}"
        try:
            return _load(place, self.dtype)
        except READ_ERRORS:  # absent, or cut off by a full disk
            arrays = self._convert(self.file.read())
        if self._states() == states:  # otherwise the file may have changed since it was hashed
            _store(place, arrays)
        return _as_numbers(arrays, self.dtype)

    @contextmanager
    def opened(self) -> Iterator[BagArrays]:
        """Like `read`; float16 and float32 copies are memory-mapped and read as they are sliced."""
        yield self.read()

    def _states(self) -> list[tuple]:
        """Path, size, inode and times of each file; unlike mtime, ctime cannot be set back."""
        states = []
        for path in self.file.parts:
            try:
                s = os.stat(path)
            except OSError as error:
                raise BagFileError(f"{path} does not exist.") from error
            times = (s.st_mtime_ns, s.st_ctime_ns)
            states.append((os.path.realpath(path), s.st_size, s.st_dev, s.st_ino, *times))
        return states

    def _digest(self, states: list[tuple]) -> str:
        """Hash of the content, from a stored note if that is valid and the file unchanged."""
        key = _hash(repr(states).encode())
        note = Path(self.folder) / f"{key}.digest"
        try:
            noted = note.read_text("ascii")
            if noted == _noted(noted[:32], key):
                return noted[:32]
        except (OSError, ValueError):  # absent or damaged
            pass
        digest = _hash(b"".join(_hash_file(path) for path in self.file.parts))
        changed = max(state[-1] for state in states)
        # A file that has just changed may change again within one tick of its clock, unseen.
        if self._states() == states and time.time_ns() - changed > _AT_REST:
            _replace(note, lambda file: file.write(_noted(digest, key).encode()))
        return digest

    def _convert(self, arrays: BagArrays) -> BagArrays:
        features = check_features(arrays.features, str(self.file))
        if self.dtype == "bfloat16":
            small = _to_bfloat16(features)
            finite = (small & 0x7F80).max() < 0x7F80
        else:
            with np.errstate(over="ignore"):
                small = features.astype(_STORED_AS[self.dtype])
            finite = np.isfinite(small).all()
        if not finite:
            raise BagError(
                f"{self.file}: features reach {np.abs(features).max():.4g}, too large for "
                f"{self.dtype}. Cache with dtype='float32'."
            )
        return arrays._replace(features=small)


def _cached(bag: Bag, name: str, folder: str | PathLike, dtype: str) -> Bag:
    source: BagSource
    if isinstance(bag.source, SlideFile):
        source = CachedFile(bag.source, os.fspath(folder), dtype)
    elif isinstance(bag.source, PatientSource):
        slides = bag.source.slides
        source = PatientSource([_cached(slide, slide.name, folder, dtype) for slide in slides])
    else:
        raise BagError(
            f"{name} is not read from a file, so it cannot be cached. Cache bags of files before "
            "they are transformed."
        )
    return Bag(source, bag_id=bag.bag_id, patient_id=bag.patient_id)


def cache_bags(bags: BagSequence, folder: str | PathLike, *, dtype: str = "float16") -> BagSequence:
    """Read bags from contiguous copies in `folder`, written when a bag is first read.

    Tools write HDF5 in chunks of one patch, which are slow to read, and training reads every bag
    in each epoch. A copy is found by the content of a file, which may be moved.

    Parameters
    ----------
    bags : BagSequence
        Bags of files or of patients, as `read_bags` and `load_cohort` return them.
    folder : path
        Created if it does not exist; several processes and cohorts may share it.
    dtype : {"float16", "bfloat16", "float32"}, default="float16"
        float16 and bfloat16 halve the space. float16 rounds features to three digits and holds
        values up to 65504, bfloat16 rounds to two digits and holds all; float32 changes nothing.

    Returns
    -------
    BagSequence

    Raises
    ------
    BagError
        If a bag is not read from a file, `dtype` is unknown, or `folder` cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import cache_bags, read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=2, random_state=0).features)
    >>> cached = cache_bags(bags, mkdtemp(), dtype="float32")
    >>> bool((cached[0].features == bags[0].features).all())
    True
    """
    if dtype not in _STORED_AS:
        raise BagError(f"dtype must be one of {', '.join(map(repr, _STORED_AS))}, got {dtype!r}.")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise BagFileError(f"{folder} cannot be a folder of copies: {error}") from error
    return bags.replace(_cached(bag, bags.name(i), folder, dtype) for i, bag in enumerate(bags))
