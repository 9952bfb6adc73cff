"""Two graph layers as one function with its own backward pass, whose loops are exchangeable.

No tensor has the size edges x features. Scores are kept per edge and head; messages are read from
the rows of their senders. Edges are visited by receiver and, in the backward pass, by sender, too.
The loops over the edges are in `compiled` (numba) and `row_blocks` (torch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .blocks import Blocks, iter_blocks, materialize
from .dropout import Mask
from .edges import Edges
from .gatv2 import GATv2
from .workspace import Scratch, Workspace

_FEW = 256  # rows for which each linear map is multiplied by itself

Columns = tuple[Tensor, int]  # a matrix and the first of its D columns that are meant


class LayerWeights(NamedTuple):
    """Parameters of one graph layer: linear maps, attention, layer norm."""

    linear: tuple[Tensor, ...]  # W_l, W_r and, where it is linear, that of the residual; (D, d_in)
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


class GraphLayers(torch.autograd.Function):
    """Two graph layers and their element-wise maximum, F (n, D); see `graph_layers`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edges: Edges,
        masks: Sequence[Mask],
        workspace: Workspace,
        kind: type[GraphLayer],
        *weights: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *weights)
        out, *ctx.layers = _forward(x, edges, masks, workspace, kind, weights, keep=True)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None) -> Any:
        if d_out is None:
            return (None,) * (5 + len(ctx.saved_tensors[1:]))
        if not ctx.layers:
            raise RuntimeError("The graph encoder has one backward pass per forward pass.")
        _ = ctx.saved_tensors  # raises if one was changed in place; the layers read their memory
        layer1, layer2 = ctx.layers
        ctx.layers = []
        d_weights2 = layer2.backward((d_out.contiguous(), 0))
        # The gradient of h1 replaces it where it stands.
        layer2.add_d_x(d_out, out=layer2.x)
        layer2.release()
        d_weights1 = layer1.backward(layer1.hidden)
        d_x = layer1.d_input() if ctx.needs_input_grad[0] else None
        layer1.release()
        return (d_x, None, None, None, None, *d_weights1, *d_weights2)


def graph_layers(
    x: Tensor | Blocks,
    edges: Edges,
    masks: Sequence[Mask],
    workspace: Workspace,
    kind: type[GraphLayer],
    first: LayerWeights,
    second: LayerWeights,
) -> Tensor:
    """F = max(h1, h2) of two graph layers, h2 = new + h1, hence F = h1 + max(new, 0).

    Parameters
    ----------
    x : Tensor of shape (n, d_in)
        Without gradients also `Blocks`.
    edges : Edges
    masks : sequence of four Mask
        Dropout of the attention weights and of the output, for the first and second layer.
    workspace : Workspace
    kind : subclass of GraphLayer
    first, second : LayerWeights
        The residual of the first layer is linear, or `x` itself if there are two linear maps. The
        second layer adds its input.

    Returns
    -------
    Tensor of shape (n, D), of the type of `x`
    """
    if len(first.linear) == 2:  # `x` is the residual, too
        x = materialize(x)
    weights = [*first.flat(), *second.flat()]
    if torch.is_grad_enabled():
        return GraphLayers.apply(x, edges, masks, workspace, kind, *weights)
    return _forward(x, edges, masks, workspace, kind, weights, keep=False)[0]


def _forward(
    x: Tensor | Blocks,
    edges: Edges,
    masks: Sequence[Mask],
    workspace: Workspace,
    kind: type[GraphLayer],
    weights: Sequence[Tensor],
    *,
    keep: bool,
) -> tuple[Tensor, GraphLayer, GraphLayer]:
    """F and the two layers, which with `keep` hold what their backward pass needs."""
    if len(x) <= _FEW or x.device.type != "cpu":  # the allocator of a GPU keeps memory by itself
        workspace = Scratch(x.device, workspace.gradients)
    of_first = len(weights) - 8  # the second layer has two linear maps
    first, second = (
        LayerWeights.from_flat(part) for part in (weights[:of_first], weights[of_first:])
    )
    layer1 = kind(first, edges, masks[:2], workspace, clamp=False)
    layer2 = kind(second, edges, masks[2:], workspace, clamp=True)
    layer1.project(x)
    # The caller keeps the result, so it is no workspace.
    out = torch.empty((len(x), layer1.dim), dtype=x.dtype, device=x.device)
    layer1.choose_hidden(keep=keep)
    layer1.forward(layer1.residual, layer1.hidden)
    if not keep:
        layer1.release(but_hidden=True)
    columns, start = layer1.hidden
    layer2.project(columns[:, start : start + layer1.dim])
    layer2.forward(layer1.hidden, (out, 0))
    if not keep:
        layer2.release()
        workspace.give(columns)
    return out, layer1, layer2


class GraphLayer:
    """Dropout(ELU(LayerNorm(GATv2(x)))) + residual, and what its backward pass needs.

    Subclasses have `forward` and `backward_loops`, the loops over nodes and edges.
    """

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
        self.hidden: Columns
        self.dim = len(weights.bias)
        self.weights, self.edges, self.masks = weights, edges, masks
        self.linear, self.linear_bias = weights.linear, weights.linear_bias

    def forward(self, residual: Columns, out: Columns) -> None:
        """Attention, then normalisation and residual; `out` may be `residual`."""
        raise NotImplementedError

    def backward_loops(self, d_out: Columns, d_score: Tensor, d_right: Tensor) -> list[Tensor]:
        """Gradients of the biases of the linear maps, and of att, bias, gain and shift.

        `d_score` (E, heads) and `d_right` (n, D) are written. Of `projected` the columns of
        W_l x are overwritten by their gradient, `attended` is overwritten altogether.
        """
        raise NotImplementedError

    def project(self, x: Tensor | Blocks) -> None:
        """Compute all linear maps of the layer, of many rows in one product per block of `x`."""
        take, width = self.workspace.take, len(self.linear) * self.dim
        self.x = x  # type: ignore[assignment]  # blocks come only without a backward pass
        self.projected = take((len(x), width), x.dtype)
        if len(x) <= _FEW and isinstance(x, Tensor) and x.dtype == self.linear[0].dtype:
            # A joint weight would take longer to write than to multiply.
            self.weight = None
            for columns, linear, bias in zip(
                self._columns(), self.linear, self.linear_bias, strict=True
            ):
                torch.addmm(bias, x, linear.T, out=columns)
            return
        self.weight = take((width, x.shape[1]), x.dtype)
        for rows, linear in zip(self.weight.split(self.dim), self.linear, strict=True):
            rows.copy_(linear)
        bias = torch.cat(self.linear_bias).to(x.dtype)
        for where, block in iter_blocks(x):
            torch.addmm(bias, block, self.weight.T, out=self.projected[where])

    def _columns(self) -> Sequence[Tensor]:
        """The result of each linear map, or its gradient."""
        return self.projected.chunk(len(self.linear), dim=1)

    @property
    def residual(self) -> Columns:
        """The residual of a layer that does not get it from the layer before."""
        return (self.x, 0) if len(self.linear) == 2 else (self.projected, 2 * self.dim)

    def choose_hidden(self, *, keep: bool) -> None:
        """Set where h1 is written: over its residual, or where that cannot be, a new matrix."""
        if keep and len(self.linear) == 3:
            self.hidden = self.residual
        else:
            self.hidden = (self.workspace.take((len(self.x), self.dim), self.projected.dtype), 0)

    def backward(self, d_out: Columns) -> list[Tensor]:
        """Gradients of the weights; `projected` is overwritten by its gradient.

        The gradient of the residual is `d_out` itself.
        """
        d_score = self.workspace.take(self.alpha.shape, self.alpha.dtype)
        d_right = self.workspace.take((len(self.attended), self.dim), self.projected.dtype)
        d_vectors = self.backward_loops(d_out, d_score, d_right)
        self.projected[:, self.dim : 2 * self.dim] = d_right
        self.workspace.give(d_score, d_right)
        return [*self._d_linear(), *d_vectors]

    def _take_attended(self, n_edges: int, n_heads: int, wide: torch.dtype) -> None:
        """Buffers for what the backward pass reads: weighted sums, and weights per edge."""
        shape = (len(self.projected), self.dim)
        self.attended = self.workspace.take(shape, self.projected.dtype)
        self.alpha = self.workspace.take((n_edges, n_heads), wide)

    def _d_linear(self) -> Sequence[Tensor]:
        """Gradients of the linear maps."""
        take, n_in = self.workspace.gradients.take, self.x.shape[1]
        if self.weight is None:
            return [torch.mm(d.T, self.x, out=take((self.dim, n_in), d)) for d in self._columns()]
        joint = take((self.projected.shape[1], n_in), self.linear[0])
        if joint.dtype == self.projected.dtype:
            torch.mm(self.projected.T, self.x, out=joint)
        else:
            short = self.workspace.take(tuple(joint.shape), self.projected.dtype)
            joint.copy_(torch.mm(self.projected.T, self.x, out=short))
            self.workspace.give(short)
        return joint.split(self.dim)

    def add_d_x(self, d_out: Tensor, out: Tensor) -> Tensor:
        """`d_out` plus the gradient of the layer's input through the linear maps, into `out`."""
        if self.weight is not None:
            return torch.addmm(d_out, self.projected, self.weight, out=out)
        for d, linear in zip(self._columns(), self.linear, strict=True):
            d_out = torch.addmm(d_out, d, linear, out=out)
        return out

    def d_input(self) -> Tensor:
        """Gradient of the input of the first layer."""
        by_residual = self.hidden[0] if len(self.linear) == 2 else self.x.new_zeros(())
        return self.add_d_x(by_residual, torch.empty_like(self.x))

    def release(self, *, but_hidden: bool = False) -> None:
        """Return the buffers to the workspace."""
        self.workspace.give(self.projected, self.attended, self.alpha)
        if self.weight is not None:
            self.workspace.give(self.weight)
        hidden = vars(self).get("hidden")
        if hidden is not None and hidden[0] is not self.projected and not but_hidden:
            self.workspace.give(hidden[0])
