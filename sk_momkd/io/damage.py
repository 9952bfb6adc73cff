"""What bag files look like on disk, one family of tools a file."""

import pickle
import struct
from lzma import LZMAError
from tokenize import TokenError
from zipfile import BadZipFile
from zlib import error as ZlibError

from anndata._io.specs.registry import IORegistryError  # anndata has no public name for it

# What h5py, torch, anndata and numpy raise on files whose bytes are wrong, depending on where.
DAMAGE = (
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
    IORegistryError,
)
