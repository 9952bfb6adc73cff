"""Normalisation and residual of a graph layer: LayerNorm, ELU, dropout and sum in one pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .primitives import (
    F32_ONE,
    F32_ZERO,
    dropout_factor,
    empty_row,
    exp,
    jit,
    jit_inline,
    read_row,
    write_row,
)

EPS = np.float32(1e-5)  # of LayerNorm


@jit_inline
def moments(row: Any) -> Any:
    """Mean of a row and 1 over its standard deviation, as in LayerNorm."""
    total = F32_ZERO
    for c in range(row.size):
        total += row[c]
    mean = total / np.float32(row.size)
    square = F32_ZERO
    for c in range(row.size):
        square += (row[c] - mean) * (row[c] - mean)
    scale = F32_ONE / np.float32(math.sqrt(square / np.float32(row.size) + EPS))
    return mean, scale if scale > F32_ZERO else np.float32(np.nan)  # overflow becomes NaN


@jit
def normalize_and_add(
    rows: tuple[int, int],
    attended: Any,  # (n, D)
    gain: Any,  # (D,), of LayerNorm
    shift: Any,  # (D,), of LayerNorm
    residual: Any,  # (n, any), of which the columns start:start + D are read
    start: int,
    dropout: Any,
    clamp: bool,  # the result is max(residual, residual + new) = residual + max(new, 0)
    out: Any,  # (n, any), columns out_start:out_start + D are written; may be `residual` itself
    out_start: int,
) -> None:
    """Dropout(ELU(LayerNorm(attended))) + residual."""
    dim = gain.size
    row_buffer, old_buffer, new = empty_row(dim), empty_row(dim), empty_row(dim)
    floor = F32_ZERO if clamp else np.float32(-np.inf)
    dropping = dropout[0] > 0
    for i in range(rows[0], rows[1]):
        row = read_row(attended[i], row_buffer)
        mean, scale = moments(row)
        for c in range(dim):
            y = (row[c] - mean) * scale * gain[c] + shift[c]
            new[c] = y if y > F32_ZERO else exp(min(y, F32_ZERO)) - F32_ONE
        if dropping:
            for c in range(dim):
                new[c] *= dropout_factor(i * dim + c, dropout)
        old = read_row(residual[i, start : start + dim], old_buffer)
        for c in range(dim):
            new[c] = old[c] + max(new[c], floor)
        write_row(new, out[i, out_start : out_start + dim])


@jit
def normalize_and_add_backward(
    rows: tuple[int, int],
    attended: Any,
    gain: Any,
    shift: Any,
    dropout: Any,
    clamp: bool,
    d_out: Any,  # (n, any), of which the columns start:start + D are read
    start: int,
    d_attended: Any,  # (n, D), written; may be `attended` itself
    d_gain: Any,  # (D,), written: sum over these rows
    d_shift: Any,  # (D,), written: sum over these rows
    d_residual: Any,  # (D,), written: sum of `d_out` over these rows
) -> None:
    """Gradients of `normalize_and_add`; that for the residual is `d_out` itself."""
    dim = gain.size
    row_buffer, g_buffer = empty_row(dim), empty_row(dim)
    normed, d = empty_row(dim), empty_row(dim)
    dropping = dropout[0] > 0
    negative = F32_ZERO if clamp else F32_ONE
    d_gain[:], d_shift[:], d_residual[:] = F32_ZERO, F32_ZERO, F32_ZERO
    for i in range(rows[0], rows[1]):
        row = read_row(attended[i], row_buffer)
        g = read_row(d_out[i, start : start + dim], g_buffer)
        mean, scale = moments(row)
        for c in range(dim):
            normed[c] = (row[c] - mean) * scale
            y = normed[c] * gain[c] + shift[c]
            d[c] = g[c] * (F32_ONE if y > F32_ZERO else negative * exp(min(y, F32_ZERO)))
        if dropping:
            for c in range(dim):
                d[c] *= dropout_factor(i * dim + c, dropout)
        mean_d, mean_dn = F32_ZERO, F32_ZERO
        for c in range(dim):
            d_residual[c] += g[c]
            d_gain[c] += d[c] * normed[c]
            d_shift[c] += d[c]
            d[c] *= gain[c]
            mean_d += d[c]
            mean_dn += d[c] * normed[c]
        mean_d, mean_dn = mean_d / np.float32(dim), mean_dn / np.float32(dim)
        for c in range(dim):
            d[c] = scale * (d[c] - mean_d - normed[c] * mean_dn)
        write_row(d, d_attended[i])
