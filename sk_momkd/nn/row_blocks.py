"""The loops of the graph encoder in plain torch, over blocks of nodes; for every device.

The nodes of a block have the same number of edges, so that the messages to them are a dense array
(rows, degree, D) without padding; graphs of nearest neighbours have one degree. A block is as large
as the cache or, on a GPU, the features of the nodes. It is computed again in the backward pass.
Nothing is scattered: the gradient of a sender is a sum over its own block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .dropout import Mask
from .edges import Degrees, Edges
from .graph_layers import Columns, GraphLayer, LayerWeights
from .precision import upcast
from .workspace import Workspace

_CACHE = 2**21  # bytes of messages at once on the CPU
_LAUNCH = 2**26  # the least at once on a GPU, for which the launch of an operation is short
_SLOPE = 0.2  # of LeakyReLU
_EPS = 1e-5  # of LayerNorm

Rows = slice | Tensor  # consecutive, or by their numbers


class BlockLayer(GraphLayer):
    """A graph layer in operations of torch."""

    compiled = False

    def __init__(
        self,
        weights: LayerWeights,
        edges: Edges,
        masks: Sequence[Mask],
        workspace: Workspace,
        **options: Any,
    ) -> None:
        super().__init__(weights, edges, masks, workspace, **options)
        self.run = _functions(compiled=self.compiled)

    def forward(self, residual: Columns, out: Columns) -> None:
        self._prepare()
        self._take_attended(self.edges.n_edges, len(self.att), self.att.dtype)
        projected, step = self._rows()
        for nodes, edges, shape in self._blocks(self.edges.in_degrees, self.edges.in_offsets):
            sender = _take(self.edges.sender, edges).view(shape).long() * step
            alpha, attended = self.run.attend(
                projected, sender, self._own(nodes, 1), self.spread, self._kept(edges, shape)
            )
            _put(self.alpha, edges, alpha.flatten(0, 1))
            attended += self.bias
            _put(self.attended, nodes, attended)
            new = self.run.finish(attended, self.gain, self.shift, self._dropped(nodes), self.clamp)
            new += _take(_columns(residual, self.dim), nodes)
            _put(_columns(out, self.dim), nodes, new)

    def backward_loops(self, d_out: Columns, d_score: Tensor, d_right: Tensor) -> list[Tensor]:
        sums = self._receivers(_columns(d_out, self.dim), d_score, d_right)
        d_att, d_bias, d_right_bias, d_gain, d_shift, d_residual_bias = sums
        d_left_bias = self._senders(d_score)
        d_linear_bias = (d_left_bias, d_right_bias, d_residual_bias)[: len(self.linear)]
        d_att = d_att.unflatten(0, self.att.shape).diagonal(dim1=0, dim2=2).T  # of its own head
        return [*d_linear_bias, d_att.unsqueeze(0), d_bias, d_gain, d_shift]

    def _receivers(self, d_out: Tensor, d_score: Tensor, d_right: Tensor) -> list[Tensor]:
        """Gradients of what belongs to the receivers, and the sums of them; weights are dropped."""
        projected, step = self._rows()
        sums: list[Tensor] = []
        for nodes, edges, shape in self._blocks(self.edges.in_degrees, self.edges.in_offsets):
            d, *d_vectors = self.run.finish_backward(
                _take(self.attended, nodes),
                self.gain,
                self.shift,
                self._dropped(nodes),
                _take(d_out, nodes),
                self.clamp,
            )
            _put(self.attended, nodes, d)
            sender = _take(self.edges.sender, edges).view(shape).long() * step
            used, score, d_own, d_att = self.run.attend_backward(
                projected,
                sender,
                self._own(nodes, 1),
                self.spread,
                self._kept(edges, shape),
                _take(self.alpha, edges).view(*shape, -1),
                d,
            )
            _put(self.alpha, edges, used.flatten(0, 1))
            _put(d_score, edges, score.flatten(0, 1))
            _put(d_right, nodes, d_own)
            found = [d_att, d.sum(dim=0), d_own.sum(dim=0), *d_vectors]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        return sums

    def _senders(self, d_score: Tensor) -> Tensor:
        """Gradients of the senders' projections, over these, and their sum."""
        projected, step = self._rows()
        total = self.bias.new_zeros(self.dim)
        for nodes, edges, shape in self._blocks(self.edges.out_degrees, self.edges.out_offsets):
            receiver = _take(self.edges.receiver, edges).view(shape).long()
            position = _take(self.edges.position, edges).long()
            d_own = self.run.send_backward(
                projected,
                receiver * step + 1,
                self._own(nodes, 0),
                self.att,
                self.alpha[position].view(*shape, -1),
                d_score[position].view(*shape, -1),
                self.attended,
                receiver,
            )
            _put(self.projected[:, : self.dim], nodes, d_own)
            total += d_own.sum(dim=0)
        return total

    def _prepare(self) -> None:
        """Vectors of the layer in the type of the sums."""
        wide = torch.promote_types(self.projected.dtype, torch.float32)
        vectors = (self.weights.att[0], *self.weights[3:])
        self.att, self.bias, self.gain, self.shift = (v.detach().to(wide) for v in vectors)
        # (D, heads): each head's vector in its own column
        self.spread = torch.block_diag(*self.att.unsqueeze(2))

    def _rows(self) -> tuple[Tensor, int]:
        """The projections one below the other, and how many each node has; W_l x is the first."""
        return self.projected.view(-1, self.dim), len(self.linear)

    def _own(self, nodes: Rows, which: int) -> Tensor:
        return upcast(_take(_columns((self.projected, which * self.dim), self.dim), nodes))

    def _blocks(
        self, degrees: Degrees, offsets: Tensor
    ) -> Iterator[tuple[Rows, Rows, tuple[int, int]]]:
        """Nodes, their edges, and the shape (rows, degree), of one block after the other."""
        n_bytes = self.dim * self.att.element_size()
        at_once = _CACHE
        if offsets.device.type != "cpu":
            at_once = max(_LAUNCH, len(self.projected) * n_bytes)
        for first, last, degree in degrees.runs:
            size = max(1, at_once // (degree * n_bytes))
            for start in range(first, last, size):
                stop = min(start + size, last)
                shape = (stop - start, degree)
                if degrees.order is None:
                    yield slice(start, stop), slice(start * degree, stop * degree), shape
                else:
                    nodes = degrees.order[start:stop]
                    within = torch.arange(degree, device=offsets.device)
                    edges = offsets.index_select(0, nodes).unsqueeze(1) + within
                    yield nodes, edges.flatten(), shape

    def _kept(self, edges: Rows, shape: tuple[int, int]) -> Tensor | None:
        """Dropout factors of the attention weights, (rows, degree, heads)."""
        return self._factors(self.masks[0], edges, len(self.att), (*shape, -1))

    def _dropped(self, nodes: Rows) -> Tensor | None:
        """Dropout factors of the output, (rows, D)."""
        return self._factors(self.masks[1], nodes, self.dim, (-1, self.dim))

    def _factors(self, mask: Mask, rows: Rows, width: int, shape: tuple[int, ...]) -> Tensor | None:
        if mask.p == 0:
            return None
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=self.att.device)
        within = torch.arange(width, dtype=torch.int32, device=self.att.device)
        counter = rows.int().unsqueeze(1) * width + within
        return mask.factors(counter, self.att.dtype).view(shape)


class CompiledBlocks(BlockLayer):
    """The same with each block's operations fused by ``torch.compile``."""

    compiled = True


def _columns(matrix: Columns, dim: int) -> Tensor:
    whole, start = matrix
    return whole[:, start : start + dim]


def _take(x: Tensor, rows: Rows) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


def _put(x: Tensor, rows: Rows, values: Tensor) -> None:
    if isinstance(rows, slice):
        x[rows] = values
    else:
        x.index_copy_(0, rows.long(), values.to(x.dtype))


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """(m, D), (R, d) -> (R, d, D) in the type of the sums."""
    return upcast(rows.index_select(0, index.flatten())).view(*index.shape, -1)


def _weigh(weights: Tensor, rows: Tensor) -> Tensor:
    """Sums over the edges, each head with its weights: (R, d, heads), (R, d, D) -> (R, D)."""
    by_head = weights.permute(2, 0, 1).contiguous().unsqueeze(2)  # (heads, R, 1, d)
    parts = rows.unflatten(2, (len(by_head), -1)).unbind(2)  # (R, d, D / heads) each
    sums = [torch.bmm(w, part) for w, part in zip(by_head, parts, strict=True)]
    return torch.cat(sums, dim=2).squeeze(1)


def _products(rows: Tensor, g: Tensor, n_heads: int) -> Tensor:
    """Inner products by head: (R, d, D), (R, D) -> (R, d, heads)."""
    return (rows * g.unsqueeze(1)).unflatten(2, (n_heads, -1)).sum(dim=3)


def _slopes(d_score: Tensor, pair: Tensor) -> Tensor:
    """Sums over the edges of d_score times the slope of LeakyReLU: (R, D); changes `pair`."""
    flat = (_SLOPE * d_score).sum(dim=1)  # (R, heads)
    steps = _weigh(d_score * (1 - _SLOPE), pair.gt_(0))
    return steps.add_(flat.repeat_interleave(pair.shape[2] // flat.shape[1], dim=1))


def attend(
    projected: Tensor,  # (m, D)
    sender: Tensor,  # (R, d), rows of it
    right: Tensor,  # (R, D)
    spread: Tensor,  # (D, heads)
    kept: Tensor | None,  # (R, d, heads), dropout factors
) -> tuple[Tensor, Tensor]:
    """Attention weights before dropout (R, d, heads), and weighted sums of messages (R, D)."""
    message = _gather(projected, sender)
    pair = F.leaky_relu(message + right.unsqueeze(1), _SLOPE, inplace=True)
    scores = (pair.flatten(0, 1) @ spread).view(*sender.shape, -1)
    alpha = scores.softmax(dim=1)
    return alpha, _weigh(alpha if kept is None else alpha * kept, message)


def attend_backward(
    projected: Tensor,
    sender: Tensor,
    right: Tensor,
    spread: Tensor,
    kept: Tensor | None,
    alpha: Tensor,  # (R, d, heads), before dropout
    d: Tensor,  # (R, D), gradient of the weighted sums
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights after dropout, gradients of the scores, of `right`, and of `spread`."""
    message = _gather(projected, sender)
    d_alpha = _products(message, d, alpha.shape[2])
    pair = message.add_(right.unsqueeze(1))
    used = alpha
    if kept is not None:
        d_alpha, used = d_alpha * kept, alpha * kept
    d_score = alpha * (d_alpha - (alpha * d_alpha).sum(dim=1, keepdim=True))
    d_spread = F.leaky_relu(pair, _SLOPE).flatten(0, 1).T @ d_score.flatten(0, 1)  # (D, heads)
    d_right = _slopes(d_score, pair) * spread.sum(dim=1)
    return used, d_score, d_right, d_spread


def send_backward(
    projected: Tensor,
    receiver: Tensor,  # (R, d), rows of it
    left: Tensor,  # (R, D)
    att: Tensor,  # (heads, D / heads)
    used: Tensor,  # (R, d, heads), weights after dropout
    d_score: Tensor,  # (R, d, heads)
    d: Tensor,  # (n, D), gradient of the weighted sums
    row: Tensor,  # (R, d), rows of `d`
) -> Tensor:
    """Gradient of `left`, through the messages and through the scores."""
    pair = _gather(projected, receiver).add_(left.unsqueeze(1))
    return _weigh(used, _gather(d, row)) + _slopes(d_score, pair) * att.flatten()


def _normalized(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with mean 0 and variance 1, and what they were multiplied by, (R, 1)."""
    variance, mean = torch.var_mean(rows, dim=1, correction=0, keepdim=True)
    scale = (variance + _EPS).rsqrt()
    scale = torch.where(scale > 0, scale, torch.nan)  # overflow becomes NaN
    return (rows - mean) * scale, scale


def finish(
    attended: Tensor, gain: Tensor, shift: Tensor, kept: Tensor | None, clamp: bool
) -> Tensor:
    """Dropout(ELU(LayerNorm(attended))), of which `clamp` keeps the positive part: (R, D)."""
    y = _normalized(attended)[0] * gain + shift
    new = F.relu(y) if clamp else F.elu(y)
    return new if kept is None else new * kept


def finish_backward(
    attended: Tensor,
    gain: Tensor,
    shift: Tensor,
    kept: Tensor | None,
    d_out: Tensor,
    clamp: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `attended` (R, D) and, summed over the rows, of gain, shift and residual."""
    normed, scale = _normalized(upcast(attended))
    y, d_out = normed * gain + shift, upcast(d_out)
    slope = (y > 0).to(y.dtype) if clamp else y.clamp(max=0).exp()
    d = d_out * slope if kept is None else d_out * slope * kept
    d_gain, d_shift = (d * normed).sum(dim=0), d.sum(dim=0)
    d = d * gain
    inner = (d * normed).mean(dim=1, keepdim=True)
    d = scale * (d - d.mean(dim=1, keepdim=True) - normed * inner)
    return d, d_gain, d_shift, d_out.sum(dim=0)


class _Functions(NamedTuple):
    """What is done with a block of nodes."""

    attend: Callable[..., Any] = attend
    attend_backward: Callable[..., Any] = attend_backward
    send_backward: Callable[..., Any] = send_backward
    finish: Callable[..., Any] = finish
    finish_backward: Callable[..., Any] = finish_backward


@cache
def _functions(*, compiled: bool) -> _Functions:
    """As they are, or by ``torch.compile``."""
    plain = _Functions()
    return _Functions(*(torch.compile(f, dynamic=True) for f in plain)) if compiled else plain
