"""GATv2 attention over the edges of a graph, forward and backward, without edge-sized rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .primitives import ONE, ZERO, buffer, compiled, inlined, kept, read, write

SLOPE = np.float32(0.2)  # of LeakyReLU, negative side


@inlined
def _dot(a: Any, b: Any) -> Any:
    total = ZERO
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@inlined
def _score(left: Any, right: Any, att: Any) -> Any:
    """Att . LeakyReLU(left + right)."""
    total = ZERO
    for c in range(att.size):
        z = left[c] + right[c]
        total += att[c] * (z if z > ZERO else SLOPE * z)
    return total


@inlined
def _add(total: Any, weight: Any, row: Any) -> None:
    """Total += weight * row."""
    for c in range(total.size):
        total[c] += weight * row[c]


@inlined
def _softmax(scores: Any) -> None:
    """Over the edges of one receiver, each head apart, in place."""
    for h in range(scores.shape[1]):
        peak, total = scores[0, h], ZERO
        for e in range(len(scores)):
            peak = max(peak, scores[e, h])
        for e in range(len(scores)):
            scores[e, h] = np.float32(math.exp(scores[e, h] - peak))
            total += scores[e, h]
        for e in range(len(scores)):
            scores[e, h] /= total


@compiled
def attend(
    rows: tuple[int, int],
    projected: Any,  # (n, 2 D or more): W_l x, W_r x
    att: Any,  # (heads, D / heads)
    bias: Any,  # (D,)
    edges: Any,  # by receiver: (n + 1,) offsets, (E,) senders
    drop: Any,  # threshold, scale, key
    alpha: Any,  # (E, heads), written: weights before dropout
    out: Any,  # (n, D), written
) -> None:
    """GATv2: each receiver's weighted sum of what its senders say."""
    offsets, sender = edges
    heads, width = att.shape
    dim = heads * width
    room, own_room, total = buffer(dim), buffer(dim), buffer(dim)
    for i in range(rows[0], rows[1]):
        first, last = offsets[i], offsets[i + 1]
        right = read(projected[i, dim : 2 * dim], own_room)
        for e in range(first, last):
            left = read(projected[sender[e], :dim], room)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                alpha[e, h] = _score(left[lo:hi], right[lo:hi], att[h])
        _softmax(alpha[first:last])
        total[:] = bias
        for e in range(first, last):
            left = read(projected[sender[e], :dim], room)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                weight = alpha[e, h] * kept(e * heads + h, drop)
                _add(total[lo:hi], weight, left[lo:hi])
        write(total, out[i])


@inlined
def _d_score(left: Any, right: Any, d: Any, d_row: Any, d_att: Any) -> None:
    """Gradient of `_score` into att, added; into the row likewise, but not yet times att."""
    for c in range(d_row.size):
        z = left[c] + right[c]
        slope = d if z > ZERO else SLOPE * d
        d_row[c] += slope
        d_att[c] += slope * z


@inlined
def _d_sender(left: Any, right: Any, att: Any, d: Any, weight: Any, g: Any, d_row: Any) -> None:
    """What one edge owes to its sender: as a message, and as half of the score; added."""
    for c in range(att.size):
        slope = d if left[c] + right[c] > ZERO else SLOPE * d
        d_row[c] += weight * g[c] + slope * att[c]


@compiled
def attend_backward_receivers(
    rows: tuple[int, int],
    projected: Any,
    att: Any,
    edges: Any,
    drop: Any,
    alpha: Any,  # (E, heads): read before dropout, written after dropout
    d_out: Any,  # (n, D)
    d_score: Any,  # (E, heads), written
    d_right: Any,  # (n, D), written: of W_r x
    d_att: Any,  # (heads, D / heads), written: sum over these rows
    d_bias: Any,  # (D,), likewise
    d_right_bias: Any,  # (D,), likewise
) -> None:
    """Gradients of the scores, of the receivers' projections, of att and of the biases."""
    offsets, sender = edges
    heads, width = att.shape
    dim = heads * width
    room, own_room, g_room, d_row = buffer(dim), buffer(dim), buffer(dim), buffer(dim)
    d_att[:], d_bias[:], d_right_bias[:] = ZERO, ZERO, ZERO
    for i in range(rows[0], rows[1]):
        first, last = offsets[i], offsets[i + 1]
        right = read(projected[i, dim : 2 * dim], own_room)
        g = read(d_out[i], g_room)
        _add(d_bias, ONE, g)
        for e in range(first, last):
            left = read(projected[sender[e], :dim], room)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                d_score[e, h] = _dot(g[lo:hi], left[lo:hi]) * kept(e * heads + h, drop)
        for h in range(heads):
            mean = ZERO
            for e in range(first, last):
                mean += alpha[e, h] * d_score[e, h]
            for e in range(first, last):
                d_score[e, h] = alpha[e, h] * (d_score[e, h] - mean)
                alpha[e, h] *= kept(e * heads + h, drop)
        d_row[:] = ZERO
        for e in range(first, last):
            left = read(projected[sender[e], :dim], room)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                _d_score(left[lo:hi], right[lo:hi], d_score[e, h], d_row[lo:hi], d_att[h])
        for h in range(heads):
            for c in range(width):
                d_row[h * width + c] *= att[h, c]
        _add(d_right_bias, ONE, d_row)
        write(d_row, d_right[i])


@compiled
def attend_backward_senders(
    rows: tuple[int, int],
    projected: Any,
    att: Any,
    edges: Any,  # by sender: (n + 1,) offsets, (E,) receivers, (E,) places in the other order
    alpha: Any,  # (E, heads), after dropout
    d_out: Any,
    d_score: Any,
    d_projected: Any,  # columns of W_l x written; may be `projected` itself
    d_left_bias: Any,  # (D,), written: sum over these rows
) -> None:
    """Gradient of the senders' projections, and of their bias."""
    offsets, receiver, place = edges
    heads, width = att.shape
    dim = heads * width
    room, own_room, g_room, d_left = buffer(dim), buffer(dim), buffer(dim), buffer(dim)
    d_left_bias[:] = ZERO
    for j in range(rows[0], rows[1]):
        left = read(projected[j, :dim], own_room)
        d_left[:] = ZERO
        for position in range(offsets[j], offsets[j + 1]):
            i, e = receiver[position], place[position]
            right = read(projected[i, dim : 2 * dim], room)
            g = read(d_out[i], g_room)
            for h in range(heads):
                lo, hi = h * width, (h + 1) * width
                _d_sender(
                    left[lo:hi],
                    right[lo:hi],
                    att[h],
                    d_score[e, h],
                    alpha[e, h],
                    g[lo:hi],
                    d_left[lo:hi],
                )
        _add(d_left_bias, ONE, d_left)
        write(d_left, d_projected[j, :dim])
