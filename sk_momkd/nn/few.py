"""Small layers in compiled loops, for training on few patches.

On bags of some hundred patches a step is the time that torch takes to launch and record its many
small operations. Here each branch of the network is one node of the graph with its own backward
pass, and gradients of weights are written to memory that was used before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .dropout import Dropout
from .kernels import memory as memory_kernels, perceptron as perceptron_kernels
from .workspace import GradientMemory

Linear = tuple[Tensor, Tensor]  # weight (d_out, d_in) and bias (d_out,)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight.T)


def _d_linear(d: Tensor, x: Tensor, memory: GradientMemory) -> Linear:
    """Gradients of the weight and the bias of a linear layer with input `x`."""
    weight = memory.take((d.shape[1], x.shape[1]), d)
    return torch.mm(d.T, x, out=weight), d.sum(dim=0)


def _unit(raw: Tensor) -> tuple[Tensor, NDArray]:
    """Rows at length one, as `F.normalize`, and their factors."""
    unit, scales = torch.empty_like(raw), np.empty(len(raw), np.float32)
    memory_kernels.normalize_rows(raw.numpy(), unit.numpy(), scales)
    return unit, scales


def _d_unit(d_unit: Tensor, unit: Tensor, scales: NDArray) -> Tensor:
    """Gradient of `_unit`."""
    d_raw, d_unit = torch.empty_like(unit), d_unit.contiguous()
    memory_kernels.normalize_rows_backward(
        d_unit.numpy(), unit.detach().numpy(), scales, d_raw.numpy()
    )
    return d_raw


class _Bags(torch.autograd.Function):
    """See `bag_outputs`."""

    @staticmethod
    def forward(
        ctx: Any,
        gradients: Any,
        segments: tuple[Tensor, int],
        keep: Tensor | None,
        embedding: Tensor,
        tau: Tensor,
        rows: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.gradients, ctx.tau, ctx.bag = gradients, tau.item(), segments[0].numpy()
        raw = _linear(embedding, *weights[:2])
        ctx.scales = np.empty(len(raw), np.float32)
        ctx.directions = np.empty(rows.shape, np.float32)
        ctx.best = np.empty((len(raw), 2), np.int64)
        projection, attention = torch.empty_like(raw), raw.new_empty(len(raw), 1)
        affinity = raw.new_empty(len(raw), *rows.shape[:2])
        pooled = raw.new_empty(segments[1], embedding.shape[1])
        memory_kernels.pool(
            raw.numpy(),
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
            pooled.numpy(),
        )
        unit, logits, ctx.slides = _slides(pooled, keep, weights[2:])
        ctx.mark_non_differentiable(affinity)
        ctx.save_for_backward(embedding, projection, affinity, attention, unit, *weights)
        return projection, affinity, attention, unit, logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, d_projection: Any, _: Any, d_attention: Any, d_unit: Any, d_logits: Any
    ) -> Any:
        embedding, projection, affinity, attention, unit, *weights = ctx.saved_tensors
        d_pooled, d_slides = _d_slides(
            d_unit, d_logits, unit, ctx.slides, weights[2:], ctx.gradients
        )
        if d_projection is d_attention is d_pooled is None:
            return (None,) * (6 + len(weights))
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
        d_projector = _d_linear(d_raw, embedding, ctx.gradients)
        d_embedding += d_raw @ weights[0]
        # Where nothing attends, no gradient rather than zero.
        d_tau = torch.tensor(d_tau) if attends and ctx.needs_input_grad[4] else None
        return None, None, None, d_embedding, d_tau, None, *d_projector, *d_slides


def _gradient(d: Tensor | None, shape: Any, empty: Any) -> Any:
    """Gradient as array of this shape; zeros where there is none."""
    return np.zeros(empty, np.float32) if d is None else d.reshape(shape).contiguous().numpy()


def _slides(
    pooled: Tensor, keep: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    """Projections of slides, logits, and what the backward pass needs.

    With `keep`, factors of a dropout, the head is LayerNorm, linear layer, ReLU, dropout and linear
    layer, else a linear layer.
    """
    unit, scales = _unit(_linear(pooled, *weights[:2]))
    if keep is None:
        return unit, _linear(pooled, *weights[2:]), (pooled, scales, None)
    gain, shift, *first = weights[2:6]
    normed, out = torch.empty_like(pooled), torch.empty_like(pooled)
    norm = (gain.detach().numpy(), shift.detach().numpy(), normed.numpy(), np.empty_like(scales))
    perceptron_kernels.normalize(pooled.numpy(), *norm, out.numpy())
    active = _linear(out, *first)
    perceptron_kernels.rectify(active.numpy(), keep.numpy())
    hidden = (norm, out, keep, active)
    return unit, _linear(active, *weights[6:]), (pooled, scales, hidden)


def _d_slides(
    d_unit: Tensor | None,
    d_logits: Tensor | None,
    unit: Tensor,
    saved: tuple[Any, ...],
    weights: Sequence[Tensor],
    gradients: GradientMemory,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of the pooled embeddings and of the weights, None where there is none."""
    pooled, scales, hidden = saved
    d_pooled: Tensor | None = None
    d_weights: list[Tensor | None] = [None] * len(weights)
    if d_logits is not None and hidden is None:
        d_pooled, d_weights[2:] = d_logits @ weights[2], _d_linear(d_logits, pooled, gradients)
    elif d_logits is not None:
        d_pooled, d_weights[2:] = _d_head(d_logits, hidden, weights[2:], gradients)
    if d_unit is not None:
        d = _d_unit(d_unit, unit, scales)
        d_weights[:2] = _d_linear(d, pooled, gradients)
        by_unit = d @ weights[0]
        d_pooled = by_unit if d_pooled is None else d_pooled.add_(by_unit)
    return d_pooled, d_weights


def _d_head(
    d_logits: Tensor,
    hidden: tuple[Any, ...],
    weights: Sequence[Tensor],
    gradients: GradientMemory,
) -> tuple[Tensor, list[Tensor]]:
    (gain, shift, weight1, _, weight2, _), (norm, out, keep, active) = weights, hidden
    d_second = _d_linear(d_logits, active, gradients)
    d_hidden = d_logits @ weight2
    perceptron_kernels.rectify_backward(d_hidden.numpy(), keep.numpy(), active.numpy())
    d_first, d_pooled = _d_linear(d_hidden, out, gradients), d_hidden @ weight1
    d_gain, d_shift = torch.empty_like(gain), torch.empty_like(shift)
    given, _, normed, scales = norm
    perceptron_kernels.normalize_backward(
        d_pooled.numpy(), given, normed, scales, d_gain.numpy(), d_shift.numpy()
    )
    return d_pooled, [d_gain, d_shift, *d_first, *d_second]


def bag_outputs(
    embedding: Tensor,
    segments: tuple[Tensor, int],
    rows: Tensor,
    tau: Tensor,
    layers: tuple[nn.Linear, nn.Linear, nn.Module],
    gradients: GradientMemory,
) -> tuple[Tensor, ...]:
    """What follows from the embeddings of patches, with a memory of two classes (Eq. 1 and 6-8).

    Parameters
    ----------
    embedding : Tensor of shape (n, D)
    segments : (int64 Tensor of shape (n,), int)
        Bag of each patch, ascending, and the number of bags.
    rows : Tensor of shape (2, m, d)
        The memory, which gets no gradient.
    tau : Tensor of shape ()
    layers : (Linear, Linear, Module)
        Projectors of patches and of slides, from D to d, and the head: a linear layer, or
        LayerNorm, linear layer, ReLU, dropout and linear layer.
    gradients : GradientMemory

    Returns
    -------
    projection : Tensor of shape (n, d)
        Of length one.
    affinity : Tensor of shape (n, 2, m)
        Without gradient.
    attention : Tensor of shape (n, 1)
    slide_projection : Tensor of shape (B, d)
        Of length one.
    logits : Tensor of shape (B, 2)
    """
    *projectors, head = layers
    keep = None
    if isinstance(head, nn.Sequential):
        keep = _factors(head, segments[1])
    weights = _weights([*projectors, head])
    return _Bags.apply(gradients, segments, keep, embedding, tau, rows, *weights)


def _factors(layers: nn.Sequential, n: int) -> Tensor:
    """Factors of the dropout of `n` rows between two linear layers."""
    (dropout,) = (part for part in layers if isinstance(part, Dropout))
    width = next(part.out_features for part in layers if isinstance(part, nn.Linear))
    return dropout.factors((n, width))


def _weights(layers: Sequence[nn.Module]) -> list[Tensor]:
    """Weights and biases of layers, or of the layers in them, in order."""
    # `parameters()` takes longer than a product of few rows, and its order is not always this one.
    parts = [part for layer in layers for part in layer._modules.values() or [layer]]
    own = [part._parameters for part in parts if part is not None and part._parameters]
    return [of_part[name] for of_part in own for name in ("weight", "bias")]  # type: ignore[misc]


class _Omics(torch.autograd.Function):
    """See `omics_outputs`."""

    @staticmethod
    def forward(
        ctx: Any, gradients: Any, keep: Sequence[Tensor], omics: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.gradients = gradients
        code, ctx.encoded = _perceptron(omics, keep[0], weights[:6])
        unit, ctx.scales = _unit(_linear(code, *weights[6:8]))
        reconstruction, ctx.decoded = _perceptron(code, keep[1], weights[8:])
        ctx.save_for_backward(omics, code, unit, *weights)
        return unit, reconstruction

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_unit: Tensor | None, d_reconstruction: Tensor | None) -> Any:
        omics, code, unit, *weights = ctx.saved_tensors
        gradients, d_code = ctx.gradients, None
        d_weights: list[Tensor | None] = [None] * len(weights)
        if d_reconstruction is not None:
            d, d_weights[8:] = _d_perceptron(
                d_reconstruction, code, ctx.decoded, weights[8:], gradients
            )
            d_code = d @ weights[8]
        if d_unit is not None:
            d = _d_unit(d_unit, unit, ctx.scales)
            d_weights[6:8] = _d_linear(d, code, gradients)
            by_unit = d @ weights[6]
            d_code = by_unit if d_code is None else d_code.add_(by_unit)
        if d_code is None:
            return None, None, None, *d_weights
        d, d_weights[:6] = _d_perceptron(d_code, omics, ctx.encoded, weights[:6], gradients)
        d_omics = d @ weights[0] if ctx.needs_input_grad[2] else None
        return None, None, d_omics, *d_weights


def _perceptron(
    x: Tensor, keep: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, tuple[Any, ...]]:
    """Linear, LayerNorm, ReLU, dropout and linear layer, and what the backward pass needs."""
    weight1, bias1, gain, shift, weight2, bias2 = weights
    hidden = _linear(x, weight1, bias1)
    normed, active = torch.empty_like(hidden), torch.empty_like(hidden)
    scale, factors = gain.detach().numpy(), keep.numpy()
    written = (normed.numpy(), np.empty(len(x), np.float32), active.numpy())
    perceptron_kernels.activate(hidden.numpy(), scale, shift.detach().numpy(), factors, *written)
    return _linear(active, weight2, bias2), (scale, factors, written, active)


def _d_perceptron(
    d_out: Tensor,
    x: Tensor,
    saved: tuple[Any, ...],
    weights: Sequence[Tensor],
    gradients: GradientMemory,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the hidden layer before its norm, and of the weights."""
    (scale, factors, written, active), (_, _, gain, shift, weight2, _) = saved, weights
    d_hidden = d_out @ weight2
    d_gain, d_shift = torch.empty_like(gain), torch.empty_like(shift)
    perceptron_kernels.activate_backward(
        d_hidden.numpy(), scale, factors, *written, d_gain.numpy(), d_shift.numpy()
    )
    d_first, d_second = _d_linear(d_hidden, x, gradients), _d_linear(d_out, active, gradients)
    return d_hidden, [*d_first, d_gain, d_shift, *d_second]


def omics_outputs(
    omics: Tensor,
    encoder: nn.Sequential,
    projector: nn.Linear,
    decoder: nn.Sequential,
    gradients: GradientMemory,
) -> tuple[Tensor, Tensor]:
    """Projections of length one (Eq. 2), and reconstructions: (P, genes) -> (P, d), (P, genes).

    Encoder and decoder are linear layer, LayerNorm, ReLU, dropout and linear layer.
    """
    keep = [_factors(layers, len(omics)) for layers in (encoder, decoder)]
    weights = _weights([encoder, projector, decoder])
    return _Omics.apply(gradients, keep, omics, *weights)
