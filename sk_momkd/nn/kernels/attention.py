"""GATv2 attention over the edges of a graph, forward and backward.

Features are never copied per edge: messages are read from the rows of their senders.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .primitives import (
    F32_ONE,
    F32_ZERO,
    add_scaled,
    dot,
    dropout_factor,
    empty_row,
    jit,
    jit_inline,
    read_row,
    write_row,
)

NEGATIVE_SLOPE = np.float32(0.2)  # of LeakyReLU


@jit_inline
def _score(left: Any, right: Any, att: Any) -> Any:
    """Attention score of one edge and head: att . LeakyReLU(left + right)."""
    total = F32_ZERO
    for c in range(att.size):
        z = left[c] + right[c]
        total += att[c] * (z if z > F32_ZERO else NEGATIVE_SLOPE * z)
    return total


@jit_inline
def _softmax(scores: Any) -> None:
    """Softmax over the edges of one receiver, for each head, in place."""
    for h in range(scores.shape[1]):
        peak, total = scores[0, h], F32_ZERO
        for e in range(len(scores)):
            peak = max(peak, scores[e, h])
        for e in range(len(scores)):
            scores[e, h] = np.float32(math.exp(scores[e, h] - peak))
            total += scores[e, h]
        for e in range(len(scores)):
            scores[e, h] /= total


@jit
def attend(
    rows: tuple[int, int],
    projected: Any,  # (n, 2 D or more): W_l x, W_r x
    att: Any,  # (heads, D / heads)
    bias: Any,  # (D,)
    edges: Any,  # by receiver: (n + 1,) offsets, (E,) senders
    dropout: Any,  # of the weights: threshold, scale, key
    alpha: Any,  # (E, heads), written: weights before dropout
    out: Any,  # (n, D), written
) -> None:
    """GATv2: weighted sum of the messages to each receiver, plus the bias."""
    offsets, sender = edges
    heads, width = att.shape
    dim = heads * width
    left_buffer, right_buffer, total = empty_row(dim), empty_row(dim), empty_row(dim)
    for i in range(rows[0], rows[1]):
        first, last = offsets[i], offsets[i + 1]
        right = read_row(projected[i, dim : 2 * dim], right_buffer)
        for e in range(first, last):
            left = read_row(projected[sender[e], :dim], left_buffer)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                alpha[e, h] = _score(left[lo:hi], right[lo:hi], att[h])
        _softmax(alpha[first:last])
        total[:] = bias
        for e in range(first, last):
            left = read_row(projected[sender[e], :dim], left_buffer)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                weight = alpha[e, h] * dropout_factor(e * heads + h, dropout)
                add_scaled(total[lo:hi], weight, left[lo:hi])
        write_row(total, out[i])


@jit_inline
def _d_score(left: Any, right: Any, d: Any, d_row: Any, d_att: Any) -> None:
    """Add the gradient of `_score` for att to `d_att`, that for the row over att to `d_row`."""
    for c in range(d_row.size):
        z = left[c] + right[c]
        slope = d if z > F32_ZERO else NEGATIVE_SLOPE * d
        d_row[c] += slope
        d_att[c] += slope * z


@jit_inline
def _d_message(left: Any, right: Any, att: Any, d: Any, weight: Any, g: Any, d_row: Any) -> None:
    """Add the gradient of one edge for its sender, through the message and through the score."""
    for c in range(att.size):
        slope = d if left[c] + right[c] > F32_ZERO else NEGATIVE_SLOPE * d
        d_row[c] += weight * g[c] + slope * att[c]


@jit
def attend_backward_receivers(
    rows: tuple[int, int],
    projected: Any,
    att: Any,
    edges: Any,
    dropout: Any,
    alpha: Any,  # (E, heads): read before dropout, written after dropout
    d_out: Any,  # (n, D)
    d_score: Any,  # (E, heads), written
    d_right: Any,  # (n, D), written: gradient for W_r x
    d_att: Any,  # (heads, D / heads), written: sum over these rows
    d_bias: Any,  # (D,), written: sum over these rows
    d_right_bias: Any,  # (D,), written: sum over these rows
) -> None:
    """Gradients for the scores, the receivers' projections, att and the biases."""
    offsets, sender = edges
    heads, width = att.shape
    dim = heads * width
    left_buffer, right_buffer = empty_row(dim), empty_row(dim)
    g_buffer, d_row = empty_row(dim), empty_row(dim)
    d_att[:], d_bias[:], d_right_bias[:] = F32_ZERO, F32_ZERO, F32_ZERO
    for i in range(rows[0], rows[1]):
        first, last = offsets[i], offsets[i + 1]
        right = read_row(projected[i, dim : 2 * dim], right_buffer)
        g = read_row(d_out[i], g_buffer)
        add_scaled(d_bias, F32_ONE, g)
        for e in range(first, last):
            left = read_row(projected[sender[e], :dim], left_buffer)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                d_score[e, h] = dot(g[lo:hi], left[lo:hi]) * dropout_factor(e * heads + h, dropout)
        for h in range(heads):
            mean = F32_ZERO
            for e in range(first, last):
                mean += alpha[e, h] * d_score[e, h]
            for e in range(first, last):
                d_score[e, h] = alpha[e, h] * (d_score[e, h] - mean)
                alpha[e, h] *= dropout_factor(e * heads + h, dropout)
        d_row[:] = F32_ZERO
        for e in range(first, last):
            left = read_row(projected[sender[e], :dim], left_buffer)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                _d_score(left[lo:hi], right[lo:hi], d_score[e, h], d_row[lo:hi], d_att[h])
        for h in range(heads):
            for c in range(width):
                d_row[h * width + c] *= att[h, c]
        add_scaled(d_right_bias, F32_ONE, d_row)
        write_row(d_row, d_right[i])


@jit
def attend_backward_senders(
    rows: tuple[int, int],
    projected: Any,
    att: Any,
    edges: Any,  # by sender: (n + 1,) offsets, (E,) receivers, (E,) positions by receiver
    alpha: Any,  # (E, heads), after dropout
    d_out: Any,
    d_score: Any,
    d_projected: Any,  # its columns of W_l x are written; may be `projected` itself
    d_left_bias: Any,  # (D,), written: sum over these rows
) -> None:
    """Gradients for the senders' projections and their bias."""
    offsets, receiver, position = edges
    heads, width = att.shape
    dim = heads * width
    left_buffer, right_buffer = empty_row(dim), empty_row(dim)
    g_buffer, d_left = empty_row(dim), empty_row(dim)
    d_left_bias[:] = F32_ZERO
    for j in range(rows[0], rows[1]):
        left = read_row(projected[j, :dim], left_buffer)
        d_left[:] = F32_ZERO
        for k in range(offsets[j], offsets[j + 1]):
            i, e = receiver[k], position[k]
            right = read_row(projected[i, dim : 2 * dim], right_buffer)
            g = read_row(d_out[i], g_buffer)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                _d_message(
                    left[lo:hi],
                    right[lo:hi],
                    att[h],
                    d_score[e, h],
                    alpha[e, h],
                    g[lo:hi],
                    d_left[lo:hi],
                )
        add_scaled(d_left_bias, F32_ONE, d_left)
        write_row(d_left, d_projected[j, :dim])
