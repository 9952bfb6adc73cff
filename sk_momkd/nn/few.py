"""Small layers in compiled loops, for training on few patches.

On bags of some dozen patches a step is the time that torch takes to launch and record its many
small operations. Here each layer is one node of the graph with its own backward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .dropout import Dropout
from .kernels import memory as memory_kernels, perceptron as perceptron_kernels


class _Unit(torch.autograd.Function):
    """Rows at length one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        unit, ctx.scales = torch.empty_like(x), np.empty(len(x), np.float32)
        memory_kernels.normalize_rows(x.detach().numpy(), unit.numpy(), ctx.scales)
        ctx.save_for_backward(unit)
        return unit

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_unit: Tensor | None) -> Tensor | None:
        if d_unit is None:
            return None
        (unit,) = ctx.saved_tensors
        d_x = torch.empty_like(unit)
        memory_kernels.normalize_rows_backward(
            d_unit.contiguous().numpy(), unit.detach().numpy(), ctx.scales, d_x.numpy()
        )
        return d_x


def unit_rows(x: Tensor) -> Tensor:
    """``F.normalize(x, dim=1)``: (n, d) -> (n, d)."""
    return _Unit.apply(x.contiguous())


class _MemoryPooling(torch.autograd.Function):
    """See `memory_pooling`."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, embedding: Tensor, tau: Tensor, rows: Tensor, batch: Tensor, n: int
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.tau, ctx.bag = tau.item(), batch.numpy()
        ctx.scales = np.empty(len(raw), np.float32)
        ctx.directions = np.empty(rows.shape, np.float32)
        ctx.best = np.empty((len(raw), 2), np.int64)
        projection = torch.empty_like(raw)
        affinity = raw.new_empty(len(raw), *rows.shape[:2])
        attention, pooled = raw.new_empty(len(raw), 1), raw.new_empty(n, 1, embedding.shape[1])
        memory_kernels.pool(
            raw.detach().numpy(),
            embedding.detach().numpy(),
            rows.detach().numpy(),
            ctx.bag,
            ctx.tau,
            projection.numpy(),
            ctx.scales,
            ctx.directions,
            affinity.numpy(),
            ctx.best,
            attention[:, 0].numpy(),
            pooled[:, 0].numpy(),
        )
        ctx.mark_non_differentiable(affinity)
        ctx.save_for_backward(embedding, projection, affinity, attention)
        return projection, affinity, attention, pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_projection: Any, _: Any, d_attention: Any, d_pooled: Any) -> Any:
        embedding, projection, affinity, attention = ctx.saved_tensors
        if d_projection is d_attention is d_pooled is None:
            return (None,) * 6
        attends = d_pooled is not None or d_attention is not None
        d_embedding, d_raw = torch.empty_like(embedding), torch.empty_like(projection)
        n, dim = embedding.shape
        d_tau = memory_kernels.pool_backward(
            _gradient(d_pooled, (-1, dim), (int(ctx.bag[-1]) + 1, dim)),
            _gradient(d_projection, projection.shape, projection.shape),
            _gradient(d_attention, (n,), (n,)),
            embedding.detach().numpy(),
            ctx.bag,
            ctx.tau,
            projection.detach().numpy(),
            ctx.scales,
            ctx.directions,
            affinity.numpy(),
            ctx.best,
            attention.detach().numpy()[:, 0],
            d_embedding.numpy(),
            d_raw.numpy(),
        )
        if not attends:  # no gradient, rather than zeros
            return d_raw, None, None, None, None, None
        return d_raw, d_embedding, torch.tensor(d_tau), None, None, None


def _gradient(d: Tensor | None, shape: Any, empty: Any) -> Any:
    """Gradient as array of this shape; zeros where there is none."""
    return np.zeros(empty, np.float32) if d is None else d.reshape(shape).contiguous().numpy()


def memory_pooling(
    raw: Tensor, embedding: Tensor, rows: Tensor, tau: Tensor, batch: Tensor, n_bags: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention by a memory of two classes and the sums that it weights (Eq. 6-8).

    Parameters
    ----------
    raw : Tensor of shape (n, d)
        Projections of the patches, of any length.
    embedding : Tensor of shape (n, D)
    rows : Tensor of shape (2, m, d)
        The memory, which gets no gradient.
    tau : Tensor of shape ()
    batch : int64 Tensor of shape (n,)
        Ascending.
    n_bags : int

    Returns
    -------
    projection : Tensor of shape (n, d)
        Of length one.
    affinity : Tensor of shape (n, 2, m)
        Without gradient.
    attention : Tensor of shape (n, 1)
    pooled : Tensor of shape (n_bags, 1, D)
    """
    return _MemoryPooling.apply(raw, embedding, tau, rows, batch, n_bags)


class _Perceptron(torch.autograd.Function):
    """See `perceptron`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, *weights: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        weight1, bias1, gain, shift, weight2, bias2 = (w.detach() for w in weights)
        hidden = torch.addmm(bias1, x, weight1.T)
        normed, active = torch.empty_like(hidden), torch.empty_like(hidden)
        ctx.scales = np.empty(len(x), np.float32)
        perceptron_kernels.activate(
            hidden.numpy(),
            gain.numpy(),
            shift.numpy(),
            keep.numpy(),
            normed.numpy(),
            ctx.scales,
            active.numpy(),
        )
        ctx.save_for_backward(x, keep, *weights, normed, active)
        return torch.addmm(bias2, active, weight2.T)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None) -> Any:
        if d_out is None:
            return (None,) * 8
        x, keep, weight1, _, gain, shift, weight2, _, normed, active = ctx.saved_tensors
        d_hidden = d_out @ weight2
        d_gain, d_shift = torch.empty_like(gain), torch.empty_like(shift)
        perceptron_kernels.activate_backward(
            d_hidden.numpy(),
            gain.detach().numpy(),
            shift.detach().numpy(),
            keep.numpy(),
            normed.numpy(),
            ctx.scales,
            d_gain.numpy(),
            d_shift.numpy(),
        )
        d_x = d_hidden @ weight1 if ctx.needs_input_grad[0] else None
        d_weight1, d_bias1 = d_hidden.T @ x, d_hidden.sum(dim=0)
        d_weight2, d_bias2 = d_out.T @ active, d_out.sum(dim=0)
        return d_x, None, d_weight1, d_bias1, d_gain, d_shift, d_weight2, d_bias2


def perceptron(
    x: Tensor, first: nn.Linear, norm: nn.LayerNorm, dropout: Dropout, second: nn.Linear
) -> Tensor:
    """Linear, LayerNorm, ReLU, dropout and linear layer: (n, d_in) -> (n, d_out)."""
    keep = dropout.factors((len(x), first.out_features))
    weights = (first.weight, first.bias, norm.weight, norm.bias, second.weight, second.bias)
    return _Perceptron.apply(x, keep, *weights)
