"""A graph layer in as few passes over its rows as its data flow allows."""

from __future__ import annotations

from typing import Any

from .attention import attend, attend_backward_receivers
from .primitives import jit
from .residual import normalize_and_add, normalize_and_add_backward


@jit
def forward(
    rows: tuple[int, int],
    projected: Any,  # (n, 2 D or more): W_l x, W_r x
    weights: Any,  # att (heads, D / heads), bias, gain and shift (D,)
    edges: Any,  # by receiver: (n + 1,) offsets, (E,) senders
    attention_dropout: Any,  # of the attention weights: threshold, scale, key
    output_dropout: Any,
    residual: Any,  # (n, any), of which the columns start:start + D are read
    start: int,
    clamp: bool,  # the result is residual + max(new, 0)
    alpha: Any,  # (E, heads), written: attention weights before dropout
    attended: Any,  # (n, D), written
    out: Any,  # (n, any), columns out_start:out_start + D are written; may be `residual` itself
    out_start: int,
) -> None:
    """Dropout(ELU(LayerNorm(GATv2(x)))) + residual."""
    att, bias, gain, shift = weights
    attend(rows, projected, att, bias, edges, attention_dropout, alpha, attended)
    normalize_and_add(
        rows, attended, gain, shift, residual, start, output_dropout, clamp, out, out_start
    )


@jit
def backward_receivers(
    rows: tuple[int, int],
    projected: Any,
    weights: Any,
    edges: Any,
    attention_dropout: Any,
    output_dropout: Any,
    d_out: Any,  # (n, any), of which the columns start:start + D are read
    start: int,
    clamp: bool,
    alpha: Any,  # (E, heads): read before dropout, written after dropout
    attended: Any,  # (n, D), overwritten by its gradient
    d_score: Any,  # (E, heads), written
    d_right: Any,  # (n, D), written: gradient for W_r x
    d_gain: Any,  # (D,), written: sums over these rows, here and below
    d_shift: Any,
    d_residual: Any,
    d_att: Any,  # (heads, D / heads)
    d_bias: Any,
    d_right_bias: Any,
) -> None:
    """Gradients up to the scores and the receivers' projections."""
    att, _, gain, shift = weights
    normalize_and_add_backward(
        rows,
        attended,
        gain,
        shift,
        output_dropout,
        clamp,
        d_out,
        start,
        attended,
        d_gain,
        d_shift,
        d_residual,
    )
    attend_backward_receivers(
        rows,
        projected,
        att,
        edges,
        attention_dropout,
        alpha,
        attended,
        d_score,
        d_right,
        d_att,
        d_bias,
        d_right_bias,
    )
