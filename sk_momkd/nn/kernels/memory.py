"""Attention by a memory of two classes, for few patches: one pass over them in each direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .primitives import F32_ONE, F32_ZERO, add_scaled, dot, empty_row, jit, jit_inline

EPS = np.float32(1e-12)  # smallest length that `normalize` divides by


@jit_inline
def normalize(row: Any, out: Any) -> Any:
    """Write the row at length one; return the factor."""
    scale = F32_ONE / max(np.float32(math.sqrt(dot(row, row))), EPS)
    for c in range(row.size):
        out[c] = row[c] * scale
    return scale


@jit_inline
def add_normalize_backward(d_unit: Any, unit: Any, scale: Any, d_row: Any) -> None:
    """Add the gradient of `normalize` for its input to `d_row`."""
    along = dot(d_unit, unit)
    for c in range(unit.size):
        d_row[c] += scale * (d_unit[c] - unit[c] * along)


@jit
def normalize_memory(rows: Any, directions: Any, scales: Any) -> None:
    """Rows of a memory (K, m, d) at length one, and their factors (K, m)."""
    for k in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            scales[k, j] = normalize(rows[k, j], directions[k, j])


@jit
def normalize_rows(x: Any, unit: Any, scales: Any) -> None:
    """Rows of `x` (n, d) at length one, and their factors (n,)."""
    for i in range(len(x)):
        scales[i] = normalize(x[i], unit[i])


@jit
def normalize_rows_backward(d_unit: Any, unit: Any, scales: Any, d_x: Any) -> None:
    """Gradient of `normalize_rows`."""
    d_x[:] = F32_ZERO
    for i in range(len(unit)):
        add_normalize_backward(d_unit[i], unit[i], scales[i], d_x[i])


@jit
def pool(
    raw: Any,  # (n, d): projections of the patches
    embedding: Any,  # (n, D)
    rows: Any,  # (2, m, d): the memory
    bag: Any,  # (n,), ascending
    tau: float,
    projection: Any,  # (n, d), written: `raw` at length one
    scales: Any,  # (n,), written
    directions: Any,  # (2, m, d), written
    affinity: Any,  # (n, 2, m), written
    best: Any,  # (n, 2), written: nearest row of each class
    attention: Any,  # (n,), written
    pooled: Any,  # (B, D), written
) -> None:
    """Weighted sums of the embeddings; a weight compares the best matches with the two classes."""
    normalize_memory(rows, directions, np.empty(rows.shape[:2], np.float32))
    for i in range(len(raw)):
        scales[i] = normalize(raw[i], projection[i])
        for k in range(2):
            for j in range(rows.shape[1]):
                affinity[i, k, j] = dot(projection[i], directions[k, j])
            best[i, k] = np.argmax(affinity[i, k])
        score = affinity[i, 1, best[i, 1]] - affinity[i, 0, best[i, 0]]
        attention[i] = score / np.float32(tau)
    pooled[:] = F32_ZERO
    first = 0
    for b in range(len(pooled)):
        last = first
        while last < len(bag) and bag[last] == b:
            last += 1
        if last > first:
            weights = attention[first:last]
            weights[:] = np.exp(weights - weights.max())
            weights /= weights.sum()
            for i in range(first, last):
                add_scaled(pooled[b], attention[i], embedding[i])
        first = last


@jit
def pool_backward(
    d_pooled: Any,
    d_projection: Any,  # (n, d)
    d_attention: Any,  # (n,)
    embedding: Any,
    bag: Any,
    tau: float,
    projection: Any,
    scales: Any,
    directions: Any,
    affinity: Any,
    best: Any,
    attention: Any,
    d_embedding: Any,  # (n, D), written: of the weighted sums
    d_raw: Any,  # (n, d), written
) -> float:
    """Gradients of `pool`; that of the temperature is returned, the memory has none."""
    n = len(bag)
    d_weight, mean = empty_row(n), np.zeros(len(d_pooled), np.float32)
    for i in range(n):
        d_weight[i] = dot(d_pooled[bag[i]], embedding[i]) + d_attention[i]
        mean[bag[i]] += attention[i] * d_weight[i]
    d_tau, d = 0.0, empty_row(projection.shape[1])
    for i in range(n):
        d_score = attention[i] * (d_weight[i] - mean[bag[i]]) / np.float32(tau)
        score = affinity[i, 1, best[i, 1]] - affinity[i, 0, best[i, 0]]
        d_tau -= d_score * score / tau
        d[:] = d_projection[i]
        add_scaled(d, d_score, directions[1, best[i, 1]])
        add_scaled(d, -d_score, directions[0, best[i, 0]])
        d_raw[i] = F32_ZERO
        add_normalize_backward(d, projection[i], scales[i], d_raw[i])
        d_embedding[i] = F32_ZERO
        add_scaled(d_embedding[i], attention[i], d_pooled[bag[i]])
    return d_tau
