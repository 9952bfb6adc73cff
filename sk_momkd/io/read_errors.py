"""Errors of damaged and missing files, reported with the name of the file and the cause."""

from __future__ import annotations

import errno
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
from .local_files import describe_content

# What h5py, torch and numpy raise on files with wrong bytes, depending on where the bytes are.
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    pickle.UnpicklingError,
    struct.error,
    BadZipFile,
    ZlibError,
    LZMAError,
    SyntaxError,
    TokenError,
)
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of file systems in the network
# For a single call of another library: in code of this package these would be its own bugs.
PARSER_ERRORS: tuple[type[Exception], ...] = (
    *READ_ERRORS,
    AttributeError,
    AssertionError,
    SystemError,
)
OR_MEMORY: tuple[type[Exception], ...] = (MemoryError, *PARSER_ERRORS)
_MEMORY_WORDS = ("allocate memory", "not enough memory", "out of memory", "unable to allocate")


def h5ad_errors() -> tuple[type[Exception], ...]:
    """`PARSER_ERRORS` and anndata's own error on unknown encodings, which has no public name."""
    registry = sys.modules.get("anndata._io.specs.registry")
    return PARSER_ERRORS if registry is None else (*PARSER_ERRORS, registry.IORegistryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking, which torch and HDF5 report as errors of other kinds."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _MEMORY_WORDS)


def _lacks_memory(path: str | PathLike, error: Exception) -> MemoryError:
    return MemoryError(f"{path}: there is not enough memory to read it: {error}")


def _cause(error: Exception) -> tuple[str, str]:
    """(what is the matter, remedy) of a file that cannot be opened for a reason of its system."""
    said = str(error)
    if isinstance(error, PermissionError):
        return "permission to read it is denied", "Ask for the right to read it."
    if getattr(error, "errno", None) in NO_LOCKS and "lock" in said:
        return "its file system has no locks", (
            "Set HDF5_USE_FILE_LOCKING=FALSE in the environment before Python starts, or copy the "
            "file to a local disk."
        )
    if isinstance(error, BlockingIOError) or "unable to lock file" in said:
        return "another program has it open for writing", "Wait until that program is done."
    if "truncated file" in said or "Truncated" in said:
        return f"it is truncated ({said})", "Copy or extract it again."
    return "", ""


@contextmanager
def errors_that_name(
    path: str | PathLike, kind: str, errors: tuple[type[Exception], ...] = READ_ERRORS
) -> Iterator[None]:
    """Raise a `BagFileError` that names `path`, a file of this `kind`, if reading it fails.

    Where memory is lacking it is a `MemoryError`, because the file may be sound.
    """
    try:
        yield
    except BagFileError:
        raise
    except FileNotFoundError as error:
        raise BagFileError(f"{path} does not exist.") from error
    except MemoryError as error:
        raise _lacks_memory(path, error) from error
    except errors as error:
        if is_out_of_memory(error):
            raise _lacks_memory(path, error) from error
        cause, remedy = _cause(error)
        if cause:
            raise BagFileError(f"{path} cannot be read: {cause}. {remedy}") from error
        reason = (str(error) or repr(error)).rstrip(".")
        hint = describe_content(path, kind)
        raise BagFileError(f"{path} is not a readable {kind}: {reason}.{hint}") from error
