"""HDF5 files, written such that a full disk is an error and nothing worse."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import h5py

if TYPE_CHECKING:
    from anndata import AnnData


class _Output(io.RawIOBase):
    """A file to which HDF5 writes, that keeps the first error of the disk to itself.

    A file whose last bytes the HDF5 library cannot write stays open in it, and ends the process
    with a segmentation fault when it exits.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.error: OSError | None = None

    def _written(self, write: Callable[..., int], given: Any, n: int) -> int:
        if self.error is None:
            try:
                return write(given)
            except OSError as error:
                self.error = error
        return n

    def write(self, content: Any) -> int:
        """Write, or do nothing after an error."""
        return self._written(self._file.write, content, len(content))

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or do nothing after an error."""
        return self._written(self._file.truncate, size, size or 0)

    def readinto(self, place: Any) -> int:
        """Read what was written."""
        return self._file.readinto(place)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def hdf5_output(path: str | PathLike) -> Iterator[h5py.File]:
    """A new HDF5 file to write, without the lock of HDF5.

    Parameters
    ----------
    path : path
        Replaced if it is there; incomplete if an error is raised.

    Raises
    ------
    OSError
        What the disk said, with the name of the file, such as that it is full.
    """
    output = _Output(fspath(path))
    try:
        with h5py.File(output, "w") as file:
            yield file
    finally:
        output.close()
        if output.error is not None:
            output.error.filename = fspath(path)
            raise output.error


def write_anndata(adata: AnnData, path: str | PathLike) -> None:
    """Write an AnnData as `adata.write_h5ad` does, through `hdf5_output`."""
    from anndata.io import write_elem

    adata.strings_to_categoricals()
    with hdf5_output(path) as file:
        write_elem(file, "/", adata)
        if adata.raw is None and "raw" in file:
            del file["raw"]  # an empty element that older versions of AnnData cannot read
