"""How a graph layer ends: LayerNorm, ELU, dropout and the residual in one pass over the rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .primitives import ONE, ZERO, buffer, compiled, exp, inlined, kept, read, write

EPS = np.float32(1e-5)  # of LayerNorm


@inlined
def _moments(row: Any) -> Any:
    """Mean and one over the standard deviation of a row, as LayerNorm takes them."""
    total = ZERO
    for c in range(row.size):
        total += row[c]
    mean = total / np.float32(row.size)
    square = ZERO
    for c in range(row.size):
        square += (row[c] - mean) * (row[c] - mean)
    scale = ONE / np.float32(math.sqrt(square / np.float32(row.size) + EPS))
    return mean, scale if scale > ZERO else np.float32(np.nan)  # overflow, seen in what follows


@compiled
def finish(
    rows: tuple[int, int],
    attended: Any,  # (n, D)
    gain: Any,  # (D,), of the LayerNorm
    shift: Any,  # (D,)
    residual: Any,  # (n, any): its columns start:start + D
    start: int,
    drop: Any,
    clamp: bool,  # max(residual, residual + new) = residual + max(new, 0)
    out: Any,  # (n, any): its columns out_start:out_start + D written; may be `residual` itself
    out_start: int,
) -> None:
    """Dropout(ELU(LayerNorm(attended))) + residual."""
    dim = gain.size
    room, residual_room, new = buffer(dim), buffer(dim), buffer(dim)
    floor = ZERO if clamp else np.float32(-np.inf)
    dropping = drop[0] > 0
    for i in range(rows[0], rows[1]):
        row = read(attended[i], room)
        mean, scale = _moments(row)
        for c in range(dim):
            y = (row[c] - mean) * scale * gain[c] + shift[c]
            new[c] = y if y > ZERO else exp(min(y, ZERO)) - ONE
        if dropping:
            for c in range(dim):
                new[c] *= kept(i * dim + c, drop)
        old = read(residual[i, start : start + dim], residual_room)
        for c in range(dim):
            new[c] = old[c] + max(new[c], floor)
        write(new, out[i, out_start : out_start + dim])


@compiled
def finish_backward(
    rows: tuple[int, int],
    attended: Any,
    gain: Any,
    shift: Any,
    drop: Any,
    clamp: bool,
    d_out: Any,  # (n, any): its columns start:start + D
    start: int,
    d_attended: Any,  # (n, D), written; may be `attended` itself
    d_gain: Any,  # (D,), written: sum over these rows
    d_shift: Any,  # (D,), likewise
    d_residual: Any,  # (D,), likewise: sum of `d_out`
) -> None:
    """Gradient of `finish` into what was attended; the residual's is `d_out` itself."""
    dim = gain.size
    room, g_room, n, d = buffer(dim), buffer(dim), buffer(dim), buffer(dim)
    dropping = drop[0] > 0
    negative = ZERO if clamp else ONE
    d_gain[:], d_shift[:], d_residual[:] = ZERO, ZERO, ZERO
    for i in range(rows[0], rows[1]):
        row = read(attended[i], room)
        g = read(d_out[i, start : start + dim], g_room)
        mean, scale = _moments(row)
        for c in range(dim):
            n[c] = (row[c] - mean) * scale
            y = n[c] * gain[c] + shift[c]
            d[c] = g[c] * (ONE if y > ZERO else negative * exp(min(y, ZERO)))
        if dropping:
            for c in range(dim):
                d[c] *= kept(i * dim + c, drop)
        mean_d, mean_dn = ZERO, ZERO
        for c in range(dim):
            d_residual[c] += g[c]
            d_gain[c] += d[c] * n[c]
            d_shift[c] += d[c]
            d[c] *= gain[c]
            mean_d += d[c]
            mean_dn += d[c] * n[c]
        mean_d, mean_dn = mean_d / np.float32(dim), mean_dn / np.float32(dim)
        for c in range(dim):
            d[c] = scale * (d[c] - mean_d - n[c] * mean_dn)
        write(d, d_attended[i])
