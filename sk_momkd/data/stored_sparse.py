"""Checks of sparse matrices in HDF5 files, whose indices scipy and anndata take as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

from ..exceptions import OmicsError

_SPARSE = ("csr_matrix", "csc_matrix", "csr", "csc")
_BLOCK = 2**22  # indices that are read at once


def sparse_kind(attribute: Callable[[str], Any]) -> str:
    """How a sparse matrix is stored, by its attributes, of which files of old have others."""
    stated = attribute("encoding-type") or attribute("h5sparse_format")
    stated = stated.decode(errors="replace") if isinstance(stated, bytes) else stated
    return stated if isinstance(stated, str) and stated in _SPARSE else ""


def check_stored_sparse(group: h5py.Group) -> None:
    """Raise if the parts of a stored sparse matrix do not fit; reading it would leave its arrays.

    Raises
    ------
    OmicsError
        Naming the file and the matrix.
    """
    import h5py  # it takes longer than the rest of a prediction needs

    where = f"{group.file.filename}: the sparse matrix {group.name!r}"
    shape = np.ravel(group.attrs.get("shape", group.attrs.get("h5sparse_shape", ())))
    parts = [group.get(key) for key in ("data", "indices", "indptr")]
    if not all(isinstance(part, h5py.Dataset) and part.ndim == 1 for part in parts):
        raise OmicsError(f"{where} is incomplete. Write the file again.")
    data, indices, indptr = parts
    if len(shape) != 2 or {shape.dtype.kind, indices.dtype.kind, indptr.dtype.kind} - {*"iu"}:
        raise OmicsError(f"{where} has indices that are no integers. Write the file again.")
    major, minor = shape if sparse_kind(group.attrs.get).startswith("csr") else shape[::-1]
    starts = indptr[:]
    lengths = (len(starts) == major + 1, len(data) == len(indices))
    if not all(lengths) or starts[0] != 0 or starts[-1] != len(indices):
        raise OmicsError(f"{where} has rows that do not fit its values. Write the file again.")
    if (starts[1:] < starts[:-1]).any():
        raise OmicsError(f"{where} has rows that overlap. Write the file again.")
    _check_indices(indices, starts, int(minor), where)


def _check_indices(indices: h5py.Dataset, starts: NDArray, n: int, where: str) -> None:
    """Raise for an index that is out of range, or twice in a row: scipy would add the values."""
    unordered: set[int] = set()
    for start in range(0, len(indices), _BLOCK):
        first = max(0, start - 1)
        found = indices[first : start + _BLOCK]
        if found.min() < 0 or found.max() >= n:
            raise OmicsError(
                f"{where} has indices from {found.min()} to {found.max()}, expected 0 to {n - 1}. "
                "The file is damaged; write it again."
            )
        falls = first + 1 + np.flatnonzero(found[1:] <= found[:-1])
        falls = falls[~np.isin(falls, starts)]  # the first index of a row may be any
        unordered.update((np.searchsorted(starts, falls, side="right") - 1).tolist())
    for row in sorted(unordered):
        found = indices[starts[row] : starts[row + 1]]
        if len(np.unique(found)) < len(found):
            raise OmicsError(
                f"{where} has the same index more than once in row {row} of its parts, so that one "
                "value would be added to another. The file is damaged, or was written so: with "
                "adata.X.sum_duplicates() it can be written again."
            )
