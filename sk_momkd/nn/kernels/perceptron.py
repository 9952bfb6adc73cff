"""LayerNorm, ReLU and dropout around linear layers, in one pass over few rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .primitives import F32_ZERO, dot, empty_row, jit
from .residual import moments


@jit
def normalize(
    x: Any,  # (n, d)
    gain: Any,  # (d,)
    shift: Any,  # (d,)
    normed: Any,  # (n, d), written
    scales: Any,  # (n,), written
    out: Any,  # (n, d), written
) -> None:
    """LayerNorm(x)."""
    for i in range(len(x)):
        mean, scales[i] = moments(x[i])
        for c in range(gain.size):
            normed[i, c] = (x[i, c] - mean) * scales[i]
            out[i, c] = normed[i, c] * gain[c] + shift[c]


@jit
def normalize_backward(
    d: Any,  # (n, d): gradient of the result, overwritten by that of its input
    gain: Any,
    normed: Any,
    scales: Any,
    d_gain: Any,  # (d,), written
    d_shift: Any,  # (d,), written
) -> None:
    """Gradients of `normalize`."""
    d_gain[:], d_shift[:], ones = F32_ZERO, F32_ZERO, empty_row(gain.size)
    ones[:] = 1
    for i in range(len(d)):
        for c in range(gain.size):
            d_gain[c] += d[i, c] * normed[i, c]
            d_shift[c] += d[i, c]
            d[i, c] *= gain[c]
        mean = dot(d[i], ones) / np.float32(gain.size)
        along = dot(d[i], normed[i]) / np.float32(gain.size)
        for c in range(gain.size):
            d[i, c] = scales[i] * (d[i, c] - mean - normed[i, c] * along)


@jit
def rectify(
    hidden: Any,  # (n, d), overwritten by the result
    keep: Any,  # (n, d): factors of the dropout
) -> None:
    """Dropout(ReLU(hidden))."""
    for i in range(len(hidden)):
        for c in range(hidden.shape[1]):
            hidden[i, c] = max(hidden[i, c], F32_ZERO) * keep[i, c]


@jit
def rectify_backward(
    d: Any,  # (n, d): gradient of the result, overwritten by that of its input
    keep: Any,
    out: Any,  # (n, d): the result
) -> None:
    """Gradient of `rectify`."""
    for i in range(len(d)):
        for c in range(d.shape[1]):
            d[i, c] *= keep[i, c] if out[i, c] > F32_ZERO else F32_ZERO


@jit
def activate(
    hidden: Any,  # (n, d)
    gain: Any,  # (d,)
    shift: Any,  # (d,)
    keep: Any,  # (n, d): factors of the dropout
    normed: Any,  # (n, d), written
    scales: Any,  # (n,), written
    active: Any,  # (n, d), written
) -> None:
    """Dropout(ReLU(LayerNorm(hidden)))."""
    normalize(hidden, gain, shift, normed, scales, active)
    rectify(active, keep)


@jit
def activate_backward(
    d: Any,  # (n, d): gradient of `active`, overwritten by that of `hidden`
    gain: Any,
    keep: Any,
    normed: Any,
    scales: Any,
    active: Any,
    d_gain: Any,  # (d,), written
    d_shift: Any,  # (d,), written
) -> None:
    """Gradients of `activate`."""
    rectify_backward(d, keep, active)
    normalize_backward(d, gain, normed, scales, d_gain, d_shift)
