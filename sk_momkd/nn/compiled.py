"""The graph encoder in compiled loops, with its own backward pass.

No tensor has the size edges x features. Scores are kept per edge and head; messages are read from
the rows of their senders. Edges are visited by receiver and, in the backward pass, by sender, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .blocks import Blocks, iter_blocks
from .dropout import Mask
from .edges import Edges
from .gatv2 import GATv2
from .kernels import attention, layer as kernels
from .threads import over_rows
from .workspace import SCRATCH, Workspace

_FEW = 256  # rows for which each linear map is multiplied by itself


class LayerWeights(NamedTuple):
    """Parameters of one graph layer: linear maps, attention, layer norm."""

    linear: tuple[Tensor, ...]  # W_l, W_r and, in layer 1, that of the residual; (D, d_in)
    linear_bias: tuple[Tensor, ...]  # (D,) each
    att: Tensor  # (1, heads, D / heads)
    bias: Tensor  # (D,)
    gain: Tensor  # (D,)
    shift: Tensor  # (D,)

    @classmethod
    def from_modules(
        cls, gat: GATv2, norm: nn.LayerNorm, residual: nn.Linear | None = None
    ) -> LayerWeights:
        linear = [gat.lin_l, gat.lin_r, *([] if residual is None else [residual])]
        weights, biases = zip(*[(layer.weight, layer.bias) for layer in linear], strict=True)
        return cls(weights, biases, gat.att, gat.bias, norm.weight, norm.bias)

    def flat(self) -> list[Tensor]:
        """All tensors in one list, as an autograd function takes them."""
        return [*self.linear, *self.linear_bias, self.att, self.bias, self.gain, self.shift]

    @classmethod
    def from_flat(cls, flat: Sequence[Tensor]) -> LayerWeights:
        """Inverse of `flat`."""
        k = (len(flat) - 4) // 2
        return cls(tuple(flat[:k]), tuple(flat[k : 2 * k]), *flat[2 * k :])


class CompiledLayers(torch.autograd.Function):
    """Two graph layers and their element-wise maximum, F (n, D); see `compiled_layers`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edges: Edges,
        masks: Sequence[Mask],
        workspace: Workspace,
        *weights: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *weights)
        out, *ctx.layers = _forward(x, edges, masks, workspace, weights, keep=True)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None) -> Any:
        if d_out is None:
            return (None,) * (4 + len(ctx.saved_tensors[1:]))
        if not ctx.layers:
            raise RuntimeError("The compiled graph encoder has one backward pass per forward pass.")
        _ = ctx.saved_tensors  # raises if one was changed in place; the layers read their memory
        layer1, layer2 = ctx.layers
        ctx.layers = []
        d_weights2 = layer2.backward((d_out.contiguous(), 0))
        # h1 has replaced the residual in the buffer of layer 1; now its gradient replaces h1.
        layer2.add_d_x(d_out, out=layer2.x)
        layer2.release()
        d_weights1 = layer1.backward((layer1.projected, 2 * layer1.dim))
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = layer1.add_d_x(torch.zeros((), dtype=d_out.dtype), torch.empty_like(layer1.x))
        layer1.release()
        return (d_x, None, None, None, *d_weights1, *d_weights2)


def compiled_layers(
    x: Tensor | Blocks,
    edges: Edges,
    masks: Sequence[Mask],
    workspace: Workspace,
    first: LayerWeights,
    second: LayerWeights,
) -> Tensor:
    """F = max(h1, h2) of two graph layers, h2 = new + h1, hence F = h1 + max(new, 0).

    Parameters
    ----------
    x : Tensor of shape (n, d_in), float32 or bfloat16, on the CPU
        Without gradients also `Blocks`.
    edges : Edges
    masks : sequence of four Mask
        Dropout of the attention weights and of the output, for the first and second layer.
    workspace : Workspace
    first, second : LayerWeights
        The first layer has a linear residual; the second adds its input.

    Returns
    -------
    Tensor of shape (n, D), of the type of `x`
    """
    weights = [*first.flat(), *second.flat()]
    if torch.is_grad_enabled():
        return CompiledLayers.apply(x, edges, masks, workspace, *weights)
    return _forward(x, edges, masks, workspace, weights, keep=False)[0]


def _forward(
    x: Tensor | Blocks,
    edges: Edges,
    masks: Sequence[Mask],
    workspace: Workspace,
    weights: Sequence[Tensor],
    *,
    keep: bool,
) -> tuple[Tensor, _Layer, _Layer]:
    """F and the two layers, which with `keep` hold what their backward pass needs."""
    workspace = SCRATCH if len(x) <= _FEW else workspace
    layer1 = _Layer(LayerWeights.from_flat(weights[:10]), edges, masks[:2], workspace, clamp=False)
    layer2 = _Layer(LayerWeights.from_flat(weights[10:]), edges, masks[2:], workspace, clamp=True)
    layer1.project(x)
    residual = (layer1.projected, 2 * layer1.dim)
    out = torch.empty(
        (len(x), layer1.dim), dtype=x.dtype
    )  # the caller keeps it, so it is no workspace
    if keep:
        layer1.forward(residual, residual)
        layer2.project(layer1.projected[:, 2 * layer1.dim :])
        layer2.forward(residual, (out, 0))
        return out, layer1, layer2
    hidden = workspace.take((len(x), layer1.dim), x.dtype)
    layer1.forward(residual, (hidden, 0))
    layer1.release()
    layer2.project(hidden)
    layer2.forward((hidden, 0), (out, 0))
    layer2.release()
    workspace.give(hidden)
    return out, layer1, layer2


_Columns = tuple[Tensor, int]  # a matrix and the first of its D columns that are meant


class _Layer:
    """Dropout(ELU(LayerNorm(GATv2(x)))) + residual, and what its backward pass needs."""

    def __init__(
        self,
        weights: LayerWeights,
        edges: Edges,
        masks: Sequence[Mask],
        workspace: Workspace,
        *,
        clamp: bool,
    ) -> None:
        self.workspace, self.clamp = workspace, clamp
        self.x: Tensor
        self.dim = len(weights.bias)
        self.linear, self.linear_bias = weights.linear, weights.linear_bias
        vectors = (weights.att[0], weights.bias, weights.gain, weights.shift)
        self.vectors = tuple(_array(vector.float()) for vector in vectors)
        self.incoming, self.outgoing = edges.arrays
        self.masks = tuple(map(_dropout, masks))

    def project(self, x: Tensor | Blocks) -> None:
        """Compute all linear maps of the layer, of many rows in one product per block of `x`."""
        take, width = self.workspace.take, len(self.linear) * self.dim
        self.x = x  # type: ignore[assignment]  # blocks come only without a backward pass
        self.projected = take((len(x), width), x.dtype)
        if len(x) <= _FEW and isinstance(x, Tensor) and x.dtype == self.linear[0].dtype:
            # A joint weight would take longer to write than to multiply.
            self.weight = None
            for columns, linear, bias in zip(
                self.projected.split(self.dim, dim=1), self.linear, self.linear_bias, strict=True
            ):
                torch.addmm(bias, x, linear.T, out=columns)
            return
        self.weight = take((width, x.shape[1]), x.dtype)
        for rows, linear in zip(self.weight.split(self.dim), self.linear, strict=True):
            rows.copy_(linear)
        bias = torch.cat(self.linear_bias).to(x.dtype)
        for where, block in iter_blocks(x):
            torch.addmm(bias, block, self.weight.T, out=self.projected[where])

    def forward(self, residual: _Columns, out: _Columns) -> None:
        """Attention, then normalisation and residual; `out` may be `residual`."""
        n, heads = len(out[0]), len(self.vectors[0])
        self.attended = self.workspace.take((n, self.dim), self.projected.dtype)
        self.alpha = self.workspace.take((len(self.incoming[1]), heads), torch.float32)
        over_rows(
            kernels.forward,
            n,
            _array(self.projected),
            self.vectors,
            self.incoming,
            *self.masks,
            _array(residual[0]),
            residual[1],
            self.clamp,
            _array(self.alpha),
            _array(self.attended),
            _array(out[0]),
            out[1],
        )

    def backward(self, d_out: _Columns) -> list[Tensor]:
        """Gradients of the weights; `projected` is overwritten by its gradient.

        The gradient of the residual is `d_out` itself.
        """
        n, projected, alpha = len(self.attended), _array(self.projected), _array(self.alpha)
        attended, att = _array(self.attended), self.vectors[0]
        d_score = self.workspace.take(self.alpha.shape, torch.float32)
        d_right = self.workspace.take((n, self.dim), self.projected.dtype)
        d_gain, d_shift, d_residual_bias, d_att, d_bias, d_right_bias = over_rows(
            kernels.backward_receivers,
            n,
            projected,
            self.vectors,
            self.incoming,
            *self.masks,
            _array(d_out[0]),
            d_out[1],
            self.clamp,
            alpha,
            attended,
            _array(d_score),
            _array(d_right),
            sum_shapes=[(self.dim,)] * 3 + [att.shape] + [(self.dim,)] * 2,
        )
        (d_left_bias,) = over_rows(
            attention.attend_backward_senders,
            n,
            projected,
            att,
            self.outgoing,
            alpha,
            attended,
            _array(d_score),
            projected,  # its columns of W_l x are overwritten by their gradient
            sum_shapes=[(self.dim,)],
        )
        self.projected[:, self.dim : 2 * self.dim] = d_right
        self.workspace.give(d_score, d_right)
        d_linear_bias = (d_left_bias, d_right_bias, d_residual_bias)[: len(self.linear)]
        return [*self._d_linear(), *d_linear_bias, d_att.unsqueeze(0), d_bias, d_gain, d_shift]

    def _d_linear(self) -> Sequence[Tensor]:
        """Gradients of the linear maps."""
        if self.weight is None:
            return [d.T @ self.x for d in self.projected.split(self.dim, dim=1)]
        return (self.projected.T @ self.x).float().split(self.dim)

    def add_d_x(self, d_out: Tensor, out: Tensor) -> Tensor:
        """`d_out` plus the gradient of the layer's input through the linear maps, into `out`."""
        if self.weight is not None:
            return torch.addmm(d_out, self.projected, self.weight, out=out)
        for d, linear in zip(self.projected.split(self.dim, dim=1), self.linear, strict=True):
            d_out = torch.addmm(d_out, d, linear, out=out)
        return out

    def release(self) -> None:
        """Return the buffers to the workspace."""
        self.workspace.give(self.projected, self.attended, self.alpha)
        if self.weight is not None:
            self.workspace.give(self.weight)


def _dropout(mask: Mask) -> tuple[np.uint32, np.float32, NDArray]:
    """Threshold, scale and key of a mask, as the kernels take them."""
    scale = np.float32(1 / (1 - mask.p))
    return np.uint32(mask.threshold), scale, np.array(mask.key, dtype=np.uint32)


def _array(tensor: Tensor) -> NDArray:
    """Array that shares the tensor's memory; bfloat16, which NumPy lacks, becomes uint16."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()
