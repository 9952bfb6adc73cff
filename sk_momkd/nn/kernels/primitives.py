"""Primitives of the compiled loops: compilation, reading and writing rows, dropout, exp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, njit
from numba.extending import overload

F32_ZERO, F32_ONE = np.float32(0), np.float32(1)  # plain 0 and 1 would turn sums into float64


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel at its first call; cache the result on disk if some folder allows it."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        # Sums may be reordered, but NaN and infinity keep their meaning.
        "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    }
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(**options)(function)


# For functions that kernels call on slices: a real call would cost a third more time.
jit_inline: Callable[..., Any] = njit(inline="always")


@jit_inline
def empty_row(size: int) -> Any:
    """Uninitialised float32 row."""
    return np.empty(size, np.float32)


@jit_inline
def dot(a: Any, b: Any) -> Any:
    """Inner product of two float32 rows."""
    total = F32_ZERO
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@jit_inline
def add_scaled(total: Any, weight: Any, row: Any) -> None:
    """Add weight * row to `total`."""
    for c in range(total.size):
        total[c] += weight * row[c]


def read_row(row: Any, buffer: Any) -> Any:
    """Return a row as float32: the row itself, or a bfloat16 row converted into `buffer`."""
    raise NotImplementedError


@overload(read_row, inline="always")
def _compile_read_row(row: Any, buffer: Any) -> Any:
    if row.dtype == float32:

        def return_itself(row: Any, buffer: Any) -> Any:
            return row

        return return_itself

    def convert(row: Any, buffer: Any) -> Any:
        for c in range(buffer.size):
            buffer[c] = np.uint32(np.uint32(row[c]) << np.uint32(16)).view(np.float32)
        return buffer

    return convert


def write_row(values: Any, row: Any) -> None:
    """Write float32 values to a row; a bfloat16 row gets the nearest bfloat16 numbers."""
    raise NotImplementedError


@overload(write_row, inline="always")
def _compile_write_row(values: Any, row: Any) -> Any:
    if row.dtype == float32:

        def copy(values: Any, row: Any) -> None:
            for c in range(values.size):
                row[c] = values[c]

        return copy

    def round_to_nearest(values: Any, row: Any) -> None:
        for c in range(values.size):
            bits = np.float32(values[c]).view(np.uint32)
            even = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
            row[c] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + even) >> np.uint32(16))

    return round_to_nearest


@jit_inline
def dropout_factor(counter: Any, dropout: Any) -> Any:
    """Factor of inverted dropout for entry `counter`: 0, or 1 / (1 - p)."""
    threshold, scale, key = dropout
    return scale if counter_bits(counter, key) >= threshold else F32_ZERO


@jit_inline
def counter_bits(counter: Any, key: Any) -> Any:
    """32 pseudo-random bits of a counter; equal to `sk_momkd.nn.dropout.counter_bits`."""
    return _hash(_hash(np.uint32(counter) ^ key[0]) ^ key[1])


@jit_inline
def _hash(x: Any) -> Any:
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return x ^ (x >> np.uint32(16))


@jit_inline
def exp(x: Any) -> Any:
    """Exponential function for x <= 0, to float32 precision, in operations that vectorise."""
    t = max(x, np.float32(-87.0)) * np.float32(1.44269504)
    k = np.floor(t + np.float32(0.5))
    f = (t - k) * np.float32(0.693147181)
    p = np.float32(1 / 720)
    p = p * f + np.float32(1 / 120)
    p = p * f + np.float32(1 / 24)
    p = p * f + np.float32(1 / 6)
    p = p * f + np.float32(0.5)
    p = p * f + np.float32(1.0)
    p = p * f + np.float32(1.0)
    return p * np.uint32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
