"""What bag files look like on disk, one family of tools a file."""

import pickle
import struct

# What h5py, torch and anndata raise on files whose bytes are wrong, depending on where.
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
)
