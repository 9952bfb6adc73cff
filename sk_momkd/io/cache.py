"""Contiguous copies of bag files, because files in one-row chunks are slow to read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bag_warnings import warn_of_bag
from ..data.arrays import BagArrays, check_features
from ..data.bag import Bag, BagInfo, BagSource
from ..data.patient import PatientSource
from ..data.sequence import BagSequence
from ..exceptions import BagError, BagFileError, CacheWarning
from ..messages import warn
from .atomic import atomic_write, sweep_parts
from .local_files import require_regular, sample_digest
from .read_errors import PARSER_ERRORS
from .readers import SlideFile
from .stored_copy import (
    STORED_AS,
    as_float32,
    checksum,
    is_at_rest,
    open_copy,
    to_bfloat16,
    write_copy,
)

_SCHEMA = 2  # raise it when copies are laid out otherwise, or a reader gives other arrays
_IDENTITIES: dict[str, str] = {}  # of files at rest, by their states
_DIGESTS: dict[str, str] = {}  # as noted in the folder, for folders that cannot be written
_LOST = 1e-5  # share of features that become zero; of normal ones 5e-8 do
_WARNED: set[tuple[str, str]] = set()


def _noted(digest: str, key: str) -> str:
    """Content of a note: the digest, and a checksum that reveals damage or a mix-up of notes."""
    return f"{digest} {checksum(f'{digest} {key}'.encode()).hex()}\n"


def _hash_file(path: str) -> bytes:
    require_regular(path, allow_external=True)  # a pipe would wait; its reader checks links
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError as error:
        raise BagFileError(f"{path} cannot be read: {error}") from error


def _warn_once(folder: Path, error: OSError) -> None:
    """Tell once per folder and cause that copies cannot be written."""
    what = error.strerror or str(error)
    if (str(folder), what) not in _WARNED:
        _WARNED.add((str(folder), what))
        warn(
            f"Copies of bags cannot be written to {folder}: {what}. Bags without a copy are read "
            "from their own files, which is slower. Free or unlock the folder.",
            CacheWarning,
        )


class CachedFile:
    """A slide file that is copied when it is first read; later the copy is read.

    The copy is named by a hash of the file's content, its format and `dtype`: a moved or copied
    cohort finds its copies, a changed file gets a new one. The hash is stored under the file's
    path, size, inode and times, so that a file is not hashed each time it is read. A copy holds a
    digest of its content and samples of the file's; both are verified when it is first read in a
    process, and a copy that fails is made again. Every write is atomic: if two processes write a
    copy at once, the later one replaces an equal copy. Where copies cannot be written, the file
    itself is read.
    """

    def __init__(self, file: SlideFile, folder: str, dtype: str) -> None:
        self.file, self.folder, self.dtype = file, folder, dtype

    def __str__(self) -> str:
        return f"{self.file}, cached"

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features)."""
        return self.file.shape

    @property
    def allow_constant(self) -> bool:
        """Whether features may all be zero."""
        return self.file.allow_constant

    @property
    def allow_mixed(self) -> bool:
        """Whether the slide may be used with others that state something else."""
        return self.file.allow_mixed

    @property
    def is_pinned(self) -> bool:
        """Whether the file must stay as it was when it was pinned."""
        return self.file.is_pinned

    def pinned(self) -> CachedFile:
        """The same, of a file that must stay as it is now."""
        return CachedFile(self.file.pinned(), self.folder, self.dtype)

    def info(self) -> BagInfo:
        """Format, keys, unit and patch size of the file."""
        return self.file.info()

    def read(self) -> BagArrays:
        """Read the copy, which is written first if it is absent or damaged."""
        with self.opened() as arrays:
            try:
                features = arrays.features[:]
            except BagFileError:  # truncated since it was verified
                features = as_float32(self._convert(self.file.read()).features, self.dtype)
            return arrays._replace(features=features)

    @contextmanager
    def opened(self) -> Iterator[BagArrays]:
        """Like `read`, but the features of a copy are read as they are sliced."""
        self.file.require_unchanged()
        states = self._states()
        # What is read with allow_constant may lack content, which others must be told.
        reader = f"{self.file.format}.constant" if self.allow_constant else self.file.format
        key = f"{self._digest(states)}.{reader}.{self.dtype}.{_SCHEMA}"
        place = Path(self.folder) / f"{key}.bag"
        with ExitStack() as stack:
            identity = self._identity(states)
            try:
                copy = open_copy(place, self.dtype, key, identity)
                arrays = stack.enter_context(copy)
            except PARSER_ERRORS:  # absent, damaged, or of another file
                arrays = self._convert(self.file.read())
                if self._states() == states:  # otherwise it may have changed since it was hashed
                    self._store(place, key, identity, arrays)
                arrays = arrays._replace(features=as_float32(arrays.features, self.dtype))
            yield arrays

    def _identity(self, states: list[tuple]) -> str:
        key = repr(states)
        if key in _IDENTITIES:
            return _IDENTITIES[key]
        made = sample_digest(self.file.parts)  # which a note in the folder cannot forge
        if is_at_rest(max(state[-1] for state in states)):
            _IDENTITIES[key] = made
        return made

    def _store(self, place: Path, key: str, identity: str, arrays: BagArrays) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_copy(place, key, identity, arrays)
        except OSError as error:
            _warn_once(place.parent, error)

    def _states(self) -> list[tuple]:
        """Path, size, inode and times of each file; unlike mtime, ctime cannot be set back.

        Not the number of its device, which changes when a drive is mounted again.
        """
        states = []
        for path in self.file.parts:
            try:
                s = os.stat(path)
            except OSError as error:
                raise BagFileError(f"{path} does not exist.") from error
            times = (s.st_mtime_ns, s.st_ctime_ns)
            states.append((os.path.realpath(path), s.st_size, s.st_ino, *times))
        return states

    def _digest(self, states: list[tuple]) -> str:
        """Hash of the content, from a stored note if that is valid and the file unchanged."""
        key = checksum(repr(states).encode()).hex()
        note = Path(self.folder) / f"{key}.digest"
        if key in _DIGESTS:
            return _DIGESTS[key]
        try:
            noted = note.read_text("ascii")
            if noted == _noted(noted[:32], key):
                return noted[:32]
        except (OSError, ValueError):  # absent or damaged
            pass
        digest = checksum(*(_hash_file(path) for path in self.file.parts)).hex()
        changed = max(state[-1] for state in states)
        # A file that has just changed may change again within one tick of its clock, unseen.
        if self._states() == states and is_at_rest(changed):
            self._note(note, digest, key)
        return digest

    def _note(self, note: Path, digest: str, key: str) -> None:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(note, sync=False) as part:
                Path(part).write_text(_noted(digest, key), "ascii")
        except OSError as error:
            _DIGESTS[key] = digest
            _warn_once(note.parent, error)

    def _convert(self, arrays: BagArrays) -> BagArrays:
        features = check_features(arrays.features, str(self.file))
        if self.dtype == "bfloat16":
            small = to_bfloat16(features)
            finite = (small & 0x7F80).max() < 0x7F80
        else:
            with np.errstate(over="ignore", under="ignore"):
                small = features.astype(STORED_AS[self.dtype])
            finite = np.isfinite(small).all()
        if not finite:
            raise BagError(
                f"{self.file}: features reach {np.abs(features).max():.4g}, too large for "
                f"{self.dtype}. Cache with dtype='float32'."
            )
        if self.dtype == "float16":
            self._warn_of_lost_values(features, small)
        return arrays._replace(features=small)

    def _warn_of_lost_values(self, features: NDArray, small: NDArray) -> None:
        lost = (small == 0) & (features != 0)
        if (share := lost.mean()) > _LOST:
            warn_of_bag(
                str(self.file),
                f"{share:.2%} of its features are too small for float16 and become 0, "
                f"the largest of them {np.abs(features[lost]).max():.3g}. Cache with "
                "dtype='bfloat16' or 'float32'.",
                CacheWarning,
            )


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
    return bag.with_source(source)


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
        If a bag is not read from a file, `dtype` is unknown, or `folder` is a file.

    Warns
    -----
    CacheWarning
        If copies cannot be written, so that the files themselves are read; or if float16 turns
        features into zeros.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import cache_bags, read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=2, random_state=0).features)
    >>> cached = cache_bags(bags, mkdtemp(), dtype="float32")
    >>> bool((cached[0].features == bags[0].features).all())
    True
    """
    if dtype not in STORED_AS:
        raise BagError(f"dtype must be one of {', '.join(map(repr, STORED_AS))}, got {dtype!r}.")
    try:
        os.makedirs(folder, exist_ok=True)
        sweep_parts(Path(folder))
    except (FileExistsError, NotADirectoryError) as error:
        raise BagFileError(f"{folder} cannot be a folder of copies: {error}") from error
    except OSError as error:  # a full or a read-only disk
        _warn_once(Path(folder), error)
    return bags.replace(_cached(bag, bags.name(i), folder, dtype) for i, bag in enumerate(bags))
