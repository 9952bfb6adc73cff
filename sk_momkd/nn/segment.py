"""Operations per bag of a flat batch, without padding or masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_ROWS = 1024  # at once, so that they stay in the processor's cache


def keep_sizes(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same index of segments, which keeps their sizes: a GPU would have to be waited for."""
    vars(index)["segment_sizes"] = list(sizes)
    return index


def segment_sizes(index: Tensor, n_segments: int) -> list[int]:
    """Number of rows of each segment."""
    kept = vars(index).get("segment_sizes")
    return torch.bincount(index, minlength=n_segments).tolist() if kept is None else kept


def segment_sum(x: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """Sum of the rows of `x` per segment: (n, ...) -> (n_segments, ...)."""
    if n_segments == 1:
        return x.sum(dim=0, keepdim=True)
    return x.new_zeros(n_segments, *x.shape[1:]).index_add(0, index, x)


def segment_mean(x: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """Mean of the rows of `x` per segment: (n, ...) -> (n_segments, ...)."""
    count = _count(index, n_segments).clamp(min=1)
    return segment_sum(x, index, n_segments) / count.view(-1, *[1] * (x.dim() - 1))


def _count(index: Tensor, n_segments: int) -> Tensor:
    """Number of rows of each segment, without waiting for a GPU: (n_segments,)."""
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=n_segments)
    return index.new_zeros(n_segments).index_add(0, index, torch.ones_like(index))


def segment_softmax(scores: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """Softmax down the rows of each segment: (n, m) -> (n, m)."""
    if n_segments == 1:
        return scores.softmax(dim=0)
    where = index.unsqueeze(1).expand_as(scores)
    floor = scores.new_full((n_segments, scores.shape[1]), -torch.inf)
    peak = floor.scatter_reduce(0, where, scores.detach(), "amax")
    weights = (scores - peak.index_select(0, index)).exp()
    return weights / segment_sum(weights, index, n_segments).index_select(0, index)


def segment_split(x: Tensor, index: Tensor, n_segments: int) -> tuple[Tensor, ...]:
    """Rows of each segment, for functions of one segment at a time; `index` must ascend."""
    if n_segments == 1:
        return (x,)
    return x.split(segment_sizes(index, n_segments))


def segment_map(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, index: Tensor, n_segments: int
) -> list[tuple[Tensor, ...]]:
    """Apply `function` to every segment; `index` must ascend.

    `function` takes g segments of the same size, (g, rows, d), and returns tensors of g entries.
    Small segments are stacked; large ones come one by one, which saves memory and costs no time.
    """
    parts = segment_split(x, index, n_segments)
    results: dict[int, tuple[Tensor, ...]] = {}
    for size in dict.fromkeys(map(len, parts)):
        same_size = [i for i, part in enumerate(parts) if len(part) == size]
        together = max(1, _ROWS // max(1, size))
        for start in range(0, len(same_size), together):
            group = same_size[start : start + together]
            done = function(torch.stack([parts[i] for i in group]))
            results.update(zip(group, zip(*done, strict=True), strict=True))
    return [results[i] for i in range(n_segments)]


def segment_pool(weights: Tensor, x: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """Weighted sums per segment without a copy of `x`; `index` must ascend.

    A bfloat16 `x` is summed as float32. (n, maps), (n, d) -> (n_segments, maps, d)
    """
    parts = zip(
        segment_split(weights, index, n_segments), segment_split(x, index, n_segments), strict=True
    )
    short = x.dtype.itemsize < weights.dtype.itemsize
    return torch.stack([_UpcastPool.apply(w, p) if short else w.T @ p for w, p in parts])


class _UpcastPool(torch.autograd.Function):
    """``weights.T @ x`` for a bfloat16 `x`, of which a few rows at a time become float32."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weights, x)
        parts = zip(weights.split(_ROWS), x.split(_ROWS), strict=True)
        return torch.stack([w.T @ rows.to(w.dtype) for w, rows in parts]).sum(dim=0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_pooled: Tensor) -> tuple[Tensor, Tensor]:
        weights, x = ctx.saved_tensors
        d_weights, d_x = torch.empty_like(weights), torch.empty_like(x)
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            d_weights[rows] = x[rows].to(weights.dtype) @ d_pooled.T
            d_x[rows] = weights[rows] @ d_pooled
        return d_weights, d_x


def true_positions(mask: Tensor, n_true: int) -> Tensor:
    """Positions of the `n_true` true entries, in order, without waiting for a GPU: (n_true,)."""
    return mask.byte().argsort(stable=True, descending=True)[:n_true]


def paired_instances(x: Tensor, batch: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
    """Instances of the bags with omics, and the index of their bag among these bags.

    (n, ...), (n,), (B,) bool -> (n_paired, ...), (n_paired,) with values below P
    """
    keep = paired[batch]
    return x[keep], (paired.cumsum(0) - 1)[batch[keep]]
