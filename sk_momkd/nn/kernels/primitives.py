"""Words of the compiled loops: how a row is read and written, dropout, exp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, njit
from numba.extending import overload

ONE, ZERO = np.float32(1), np.float32(0)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile when first called, and keep the result on disk where there is a place for it."""
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


inlined: Callable[..., Any] = njit(inline="always")  # calls with slices would cost a third more


def read(row: Any, room: Any) -> Any:
    """A row as float32: itself, or widened into `room`."""
    raise NotImplementedError


@overload(read, inline="always")
def _read_compiled(row: Any, room: Any) -> Any:
    if row.dtype == float32:

        def itself(row: Any, room: Any) -> Any:
            return row

        return itself

    def widen(row: Any, room: Any) -> Any:
        for c in range(room.size):
            room[c] = np.uint32(np.uint32(row[c]) << np.uint32(16)).view(np.float32)
        return room

    return widen


def write(values: Any, row: Any) -> None:
    """Store float32 values in a row, rounded to the nearest bfloat16 where that is its type."""
    raise NotImplementedError


@overload(write, inline="always")
def _write_compiled(values: Any, row: Any) -> Any:
    if row.dtype == float32:

        def copy(values: Any, row: Any) -> None:
            for c in range(values.size):
                row[c] = values[c]

        return copy

    def narrow(values: Any, row: Any) -> None:
        for c in range(values.size):
            bits = np.float32(values[c]).view(np.uint32)
            even = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
            row[c] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + even) >> np.uint32(16))

    return narrow


@inlined
def _mix(x: Any) -> Any:
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return x ^ (x >> np.uint32(16))


@inlined
def bits(counter: Any, key: Any) -> Any:
    """32 random-looking bits of a counter; `counter_bits` in dropout.py is the same in torch."""
    return _mix(_mix(np.uint32(counter) ^ key[0]) ^ key[1])


@inlined
def exp(x: Any) -> Any:
    """Exp for x <= 0, to the last digits of a float32, in operations that vectorise."""
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


@inlined
def buffer(size: int) -> Any:
    """Room for one row."""
    return np.empty(size, np.float32)


@inlined
def kept(counter: Any, drop: Any) -> Any:
    """Inverted dropout's factor: 0, or 1 / (1 - p)."""
    threshold, scale, key = drop
    return scale if bits(counter, key) >= threshold else ZERO
