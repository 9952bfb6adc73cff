"""Read the delicate parts of an HDF5 file in a process of its own, which a damaged file may kill.

The HDF5 library follows damaged references of texts of variable length out of its memory, or
forever. This file is run as a program, with h5py alone.
"""

import sys

_LARGE = 2**24  # values


def probe(path: str) -> None:
    """Read all attributes, and all datasets but large ones of numbers."""
    import h5py

    def read(_: str, found: h5py.HLObject) -> None:
        dict(found.attrs)
        if isinstance(found, h5py.Dataset) and (found.dtype.kind == "O" or found.size < _LARGE):
            found[()]

    with h5py.File(path, "r") as file:
        dict(file.attrs)
        file.visititems(read)


if __name__ == "__main__":
    probe(sys.argv[1])  # an error here is told by the process that reads the file
