"""Errors of damaged and missing files, reported with the name of the file."""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from os import PathLike
from tokenize import TokenError
from zipfile import BadZipFile
from zlib import error as ZlibError

from ..exceptions import BagFileError

# What h5py, torch and numpy raise on files with wrong bytes, depending on where the bytes are.
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    SystemError,
    pickle.UnpicklingError,
    struct.error,
    BadZipFile,
    ZlibError,
    LZMAError,
    SyntaxError,
    TokenError,
)


def h5ad_errors() -> tuple[type[Exception], ...]:
    """`READ_ERRORS` and anndata's own error on unknown encodings, which has no public name."""
    registry = sys.modules.get("anndata._io.specs.registry")
    return READ_ERRORS if registry is None else (*READ_ERRORS, registry.IORegistryError)


@contextmanager
def errors_that_name(path: str | PathLike, kind: str) -> Iterator[None]:
    """Raise a `BagFileError` that names `path`, a file of this `kind`, if reading it fails."""
    try:
        yield
    except BagFileError:
        raise
    except FileNotFoundError as error:
        raise BagFileError(f"{path} does not exist.") from error
    except h5ad_errors() as error:
        reason = str(error) or repr(error)
        raise BagFileError(f"{path} is not a readable {kind}: {reason}") from error
