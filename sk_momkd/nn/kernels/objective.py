"""MoMKD's objective for two classes and few patches, all terms and their gradients in one pass.

The equations are those of `sk_momkd.losses.momkd`; the names of the arrays, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .memory import add_normalize_backward, normalize_memory
from .primitives import F32_ONE, F32_ZERO, add_scaled, dot, jit, jit_inline

_LINEAR = np.float32(20)  # softplus is its argument from here on, as in torch


@jit_inline
def _softplus(x: Any) -> Any:
    """Softplus and its derivative."""
    if x > _LINEAR:
        return x, F32_ONE
    e = np.float32(math.exp(x))
    return np.float32(math.log1p(e)), e / (F32_ONE + e)


@jit_inline
def _align(
    f: Any,  # (d,), of length one
    directions: Any,  # (2, m, d)
    target: Any,  # (2,)
    constants: Any,  # margin, beta, tau_agg
    weights: Any,  # (2, m), written: gradient of the loss for the cosines
) -> Any:
    """Alignment of a vector with the memory, by a soft label."""
    margin, beta, tau = constants
    n_rows = directions.shape[1]
    phi = np.empty(2, np.float32)
    for k in range(2):
        for j in range(n_rows):
            weights[k, j] = tau * dot(f, directions[k, j])
        peak, total = weights[k].max(), F32_ZERO
        for j in range(n_rows):
            weights[k, j] = np.float32(math.exp(weights[k, j] - peak))
            total += weights[k, j]
        weights[k] /= total
        phi[k] = (peak + np.float32(math.log(total))) / tau
    loss, slope = F32_ZERO, F32_ZERO
    for k in range(2):
        value, d = _softplus(beta * (margin - (phi[k] - phi[1 - k])))
        loss += target[k] * value
        slope -= target[k] * beta * (d if k == 1 else -d)
    for j in range(n_rows):
        weights[1, j] *= slope
        weights[0, j] *= -slope
    return loss


@jit_inline
def _align_backward(
    d: Any, f: Any, directions: Any, weights: Any, d_f: Any, d_directions: Any
) -> None:
    d_f[:] = F32_ZERO
    for k in range(2):
        for j in range(directions.shape[1]):
            add_scaled(d_f, d * weights[k, j], directions[k, j])
            add_scaled(d_directions[k, j], d * weights[k, j], f)


@jit_inline
def _nearest(point: Any, rows: Any, own: int) -> Any:
    """Class and number of the Euclidean-nearest row; `own` is the class, or -1 for any."""
    found, nearest, k_nearest = np.float32(np.inf), 0, 0
    for k in range(len(rows)):
        if own in (-1, k):
            for j in range(rows.shape[1]):
                row = rows[k, j]
                distance = dot(row, row) - np.float32(2) * dot(point, row)
                if distance < found:
                    found, nearest, k_nearest = distance, j, k
    return k_nearest, nearest


@jit
def terms(
    inputs: Any,  # logits (B, 2), slide (B, d), projection (n, d), memory (2, m, d)
    omics: Any,  # projection (P, d), omics and reconstruction (P, genes)
    labels: Any,  # y (B,), target (B, 2), bag (n,), paired bags (P,)
    constants: Any,  # margin, beta, tau_agg
    flags: Any,  # cosine, mean commitment, label commitment, mean ortho, label ortho, soft align
    values: Any,  # ce, align_wsi, memory (B,); align_omics, mse (P,); all written
    saved: Any,  # weights (B + P, 2, m), nearest (n, 2), directions (2, m, d), scales (2, m)
) -> None:
    """Value of each term for each bag."""
    logits, slide, projection, memory = inputs
    omics_projection, genes, reconstruction = omics
    y, target, bag, paired = labels
    ce, align_wsi, memory_loss, align_omics, mse = values
    weights, nearest, directions, scales = saved
    normalize_memory(memory, directions, scales)
    m, hard = memory.shape[1], np.zeros((2, 2), np.float32)
    hard[0, 0] = hard[1, 1] = F32_ONE
    ortho = np.zeros(2, np.float32)
    for k in range(2):
        for i in range(m):
            for j in range(m):
                ortho[k] += dot(directions[k, i], directions[k, j]) ** 2
        ortho[k] = 10 * (ortho[k] / m**2 - 1 / m) if flags[3] else ortho[k] - m
    for b in range(len(y)):
        peak = max(logits[b, 0], logits[b, 1])
        low = peak + np.float32(
            math.log(math.exp(logits[b, 0] - peak) + math.exp(logits[b, 1] - peak))
        )
        ce[b] = target[b, 0] * (low - logits[b, 0]) + target[b, 1] * (low - logits[b, 1])
        aim = target[b] if flags[5] else hard[y[b]]
        align_wsi[b] = _align(slide[b], directions, aim, constants, weights[b])
        memory_loss[b] = F32_ZERO
    counts = np.zeros(len(y), np.float32)
    rows = directions if flags[0] else memory
    for i in range(len(bag)):
        k, j = _nearest(projection[i], rows, y[bag[i]] if flags[2] else -1)
        nearest[i, 0], nearest[i, 1] = k, j
        square = F32_ZERO
        for c in range(memory.shape[2]):
            square += (projection[i, c] - rows[k, j, c]) ** 2
        memory_loss[bag[i]] += square / np.float32(memory.shape[2] if flags[1] else 1)
        counts[bag[i]] += F32_ONE
    for b in range(len(y)):
        memory_loss[b] /= max(counts[b], F32_ONE)
        memory_loss[b] += ortho[y[b]] if flags[4] else ortho[0] + ortho[1]
    for p in range(len(omics_projection)):
        own = hard[y[paired[p]]]
        align_omics[p] = _align(
            omics_projection[p], directions, own, constants, weights[len(y) + p]
        )
    for p in range(len(genes)):
        square = F32_ZERO
        for g in range(genes.shape[1]):
            square += (genes[p, g] - reconstruction[p, g]) ** 2
        mse[p] = square / np.float32(genes.shape[1])


@jit
def terms_backward(
    inputs: Any,
    omics: Any,
    labels: Any,
    flags: Any,
    saved: Any,
    d_values: Any,  # gradients of ce, align_wsi, memory (B,); align_omics, mse (P,)
    d_inputs: Any,  # written
    d_omics: Any,  # projection (P, d), reconstruction (P, genes); written
) -> None:
    """Gradients of `terms` for what it compares."""
    logits, slide, projection, memory = inputs
    omics_projection, genes, reconstruction = omics
    y, target, bag, _ = labels
    weights, nearest, directions, scales = saved
    d_ce, d_align_wsi, d_memory_loss, d_align_omics, d_mse = d_values
    d_logits, d_slide, d_projection, d_memory = d_inputs
    d_omics_projection, d_reconstruction = d_omics
    m, width = memory.shape[1], memory.shape[2]
    d_directions = np.zeros(memory.shape, np.float32)
    counts, d_ortho = np.zeros(len(y), np.float32), np.zeros(2, np.float32)
    for i in range(len(bag)):
        counts[bag[i]] += F32_ONE
    for b in range(len(y)):
        high = F32_ONE / (F32_ONE + np.float32(math.exp(logits[b, 0] - logits[b, 1])))
        both = target[b, 0] + target[b, 1]
        d_logits[b, 1] = d_ce[b] * (both * high - target[b, 1])
        d_logits[b, 0] = d_ce[b] * (both * (F32_ONE - high) - target[b, 0])
        _align_backward(d_align_wsi[b], slide[b], directions, weights[b], d_slide[b], d_directions)
        for k in range(2):
            if k == y[b] or not flags[4]:
                d_ortho[k] += d_memory_loss[b]
    rows = directions if flags[0] else memory
    for i in range(len(bag)):
        d = np.float32(2) * d_memory_loss[bag[i]] / counts[bag[i]]
        d /= np.float32(width if flags[1] else 1)
        row = rows[nearest[i, 0], nearest[i, 1]]
        for c in range(width):
            d_projection[i, c] = d * (projection[i, c] - row[c])
    for p in range(len(omics_projection)):
        _align_backward(
            d_align_omics[p],
            omics_projection[p],
            directions,
            weights[len(y) + p],
            d_omics_projection[p],
            d_directions,
        )
    for p in range(len(genes)):
        d = np.float32(2) * d_mse[p] / np.float32(genes.shape[1])
        for g in range(genes.shape[1]):
            d_reconstruction[p, g] = d * (reconstruction[p, g] - genes[p, g])
    d_memory[:] = F32_ZERO
    for k in range(2):
        d_square = np.float32(4) * d_ortho[k] * np.float32(10 / m**2 if flags[3] else 1)
        for i in range(m):
            for j in range(m):
                cosine = dot(directions[k, i], directions[k, j])
                add_scaled(d_directions[k, i], d_square * cosine, directions[k, j])
        for i in range(m):
            add_normalize_backward(
                d_directions[k, i], directions[k, i], scales[k, i], d_memory[k, i]
            )
