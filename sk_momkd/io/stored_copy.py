"""One copy of a bag in a file: a header, its checksum, and contiguous arrays with a digest.

The file is read and not mapped: a file that is truncated under a map kills the process.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays
from ..exceptions import BagFileError
from .atomic import atomic_write

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_MAGIC = b"sk_momkd copy of a bag\n"
_SUM = 16  # bytes of a checksum
_LARGEST_HEADER = 2**16
_BLOCK = 2**22  # bytes that are read at once
STORED_AS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
AT_REST = 2 * 10**9  # ns; file systems note times to two seconds at worst
_VERIFIED: set[tuple] = set()  # states of copies whose digest was right in this process


class _Array(NamedTuple):
    """Where an array is, and of what type."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def is_at_rest(changed: int) -> bool:
    """Whether a file that changed at this time (ns) cannot change again without a new time."""
    return time.time_ns() - changed > AT_REST


def checksum(*parts: Buffer) -> bytes:
    """BLAKE2b of the parts."""
    made = hashlib.blake2b(digest_size=_SUM)
    for part in parts:
        made.update(part)
    return made.digest()


def to_bfloat16(features: NDArray) -> NDArray:
    """The upper 16 bits of float32, rounded to nearest, ties to even."""
    bits = features.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def as_float32(stored: NDArray, dtype: str) -> NDArray:
    """Features of a copy as float32; bfloat16 is its upper half."""
    if dtype != "bfloat16":
        return stored.astype(np.float32, copy=False)
    return np.left_shift(stored, np.uint32(16), dtype=np.uint32).view(np.float32)


def write_copy(path: Path, key: str, identity: str, arrays: BagArrays) -> None:
    """Write the arrays of a bag, under a `key` and with the `identity` of what was copied."""
    rest = {"coords": arrays.coords, "edge_index": arrays.edge_index}
    parts = {"features": arrays.features} | {n: a for n, a in rest.items() if a is not None}
    parts = {name: np.ascontiguousarray(values) for name, values in parts.items()}
    described = {
        "key": key,
        "identity": identity,
        "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in parts.items()],
        "digest": checksum(*(a.data.cast("B") if a.size else b"" for a in parts.values())).hex(),
    }
    header = json.dumps(described).encode()
    with atomic_write(path, sync=False) as part, open(part, "wb") as file:
        file.write(_MAGIC + len(header).to_bytes(4, "little") + header + checksum(header))
        for values in parts.values():
            file.write(values.data)


def _fill(file: IO[bytes], target: memoryview) -> memoryview:
    """Read until `target` is full."""
    done = 0
    while done < len(target):
        n = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not n:
            raise BagFileError(f"The copy {file.name} is truncated. Read the bag again.")
        done += n
    return target


def _header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    start = _fill(file, memoryview(bytearray(len(_MAGIC) + 4))).tobytes()
    size = int.from_bytes(start[-4:], "little")
    if not start.startswith(_MAGIC) or size > _LARGEST_HEADER:
        raise ValueError("this is no copy of a bag")
    content = _fill(file, memoryview(bytearray(size + _SUM))).tobytes()
    if checksum(content[:size]) != content[size:]:
        raise ValueError("the header of the copy is damaged")
    return json.loads(content[:size]), len(start) + len(content)


class StoredCopy:
    """An open copy; its content is verified when it is first read in a process.

    Parameters
    ----------
    file : binary file
        Unbuffered.
    dtype : {"float16", "bfloat16", "float32"}
        Of the features.
    key, identity : str
        Those with which it must have been written.

    Raises
    ------
    ValueError
        If it is damaged, or was written under another key or of another content.
    """

    def __init__(self, file: IO[bytes], dtype: str, key: str, identity: str) -> None:
        self._file, self._dtype = file, dtype
        header, start = _header(file)
        if (header["key"], header["identity"]) != (key, identity):
            raise ValueError("the copy is of another file")
        self._arrays = {}
        for name, kind, shape in header["arrays"]:
            self._arrays[name] = _Array(np.dtype(kind), tuple(shape), start)
            start += self._arrays[name].nbytes
        found = os.fstat(file.fileno())
        if found.st_size != start or self._arrays["features"].dtype.str != STORED_AS[dtype]:
            raise ValueError("the copy has another size or type than its header says")
        self._verify(header["digest"], (found.st_dev, found.st_ino, start, key, found.st_ctime_ns))

    def _verify(self, digest: str, state: tuple) -> None:
        if state in _VERIFIED:
            return
        made, block = hashlib.blake2b(digest_size=_SUM), memoryview(bytearray(_BLOCK))
        while n := self._file.readinto(block):  # type: ignore[attr-defined]
            made.update(block[:n])
        if made.hexdigest() != digest:
            raise ValueError("the content of the copy is damaged")
        if is_at_rest(state[-1]):
            _VERIFIED.add(state)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        return self._arrays["features"].shape

    def __getitem__(self, rows: slice) -> NDArray:
        """Rows of the features, float32; read and converted block by block."""
        stored = self._arrays["features"]
        first, stop, _ = rows.indices(stored.shape[0])
        out = np.empty((stop - first, stored.shape[1]), dtype=np.float32)
        width = stored.dtype.itemsize * stored.shape[1]
        self._file.seek(stored.start + first * width)
        if self._dtype == "float32":
            _fill(self._file, out.data.cast("B"))
            return out
        per_block = max(1, _BLOCK // max(width, 1))
        for start in range(0, len(out), per_block):
            block = np.empty(out[start : start + per_block].shape, dtype=stored.dtype)
            _fill(self._file, block.data.cast("B"))
            out[start : start + per_block] = as_float32(block, self._dtype)
        return out

    def _array(self, name: str) -> NDArray | None:
        if name not in self._arrays:
            return None
        stored = self._arrays[name]
        values = np.empty(stored.shape, dtype=stored.dtype)
        self._file.seek(stored.start)
        if values.size:
            _fill(self._file, values.data.cast("B"))
        return values

    def arrays(self) -> BagArrays:
        """Coordinates and graph in memory; features are read as they are sliced."""
        return BagArrays(self, self._array("coords"), self._array("edge_index"))  # type: ignore[arg-type]


@contextmanager
def open_copy(path: Path, dtype: str, key: str, identity: str) -> Iterator[BagArrays]:
    """Open a copy; its features are read as they are sliced."""
    with open(path, "rb", buffering=0) as file:
        yield StoredCopy(file, dtype, key, identity).arrays()
