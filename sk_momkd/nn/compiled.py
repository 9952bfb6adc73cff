"""The loops of the graph encoder, compiled by numba; on the CPU, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .dropout import Mask
from .edges import Edges
from .graph_layers import Columns, GraphLayer, LayerWeights
from .kernels import attention, layer as kernels
from .threads import over_rows
from .workspace import Workspace


class CompiledLayer(GraphLayer):
    """A graph layer in compiled loops."""

    def __init__(
        self,
        weights: LayerWeights,
        edges: Edges,
        masks: Sequence[Mask],
        workspace: Workspace,
        **options: Any,
    ) -> None:
        super().__init__(weights, edges, masks, workspace, **options)
        vectors = (weights.att[0], weights.bias, weights.gain, weights.shift)
        self.vectors = tuple(_array(vector.float()) for vector in vectors)
        self.incoming, self.outgoing = edges.arrays
        self.dropouts = tuple(map(_dropout, masks))

    def forward(self, residual: Columns, out: Columns) -> None:
        self._take_attended(len(self.incoming[1]), len(self.vectors[0]), torch.float32)
        over_rows(
            kernels.forward,
            len(out[0]),
            _array(self.projected),
            self.vectors,
            self.incoming,
            *self.dropouts,
            _array(residual[0]),
            residual[1],
            self.clamp,
            _array(self.alpha),
            _array(self.attended),
            _array(out[0]),
            out[1],
        )

    def backward_loops(self, d_out: Columns, d_score: Tensor, d_right: Tensor) -> list[Tensor]:
        n, projected, alpha = len(self.attended), _array(self.projected), _array(self.alpha)
        attended, att = _array(self.attended), self.vectors[0]
        d_gain, d_shift, d_residual_bias, d_att, d_bias, d_right_bias = over_rows(
            kernels.backward_receivers,
            n,
            projected,
            self.vectors,
            self.incoming,
            *self.dropouts,
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
        d_linear_bias = (d_left_bias, d_right_bias, d_residual_bias)[: len(self.linear)]
        return [*d_linear_bias, d_att.unsqueeze(0), d_bias, d_gain, d_shift]


def _dropout(mask: Mask) -> tuple[np.uint32, np.float32, NDArray]:
    """Threshold, scale and key of a mask, as the kernels take them."""
    scale = np.float32(1 / (1 - mask.p))
    return np.uint32(mask.threshold), scale, np.array(mask.key, dtype=np.uint32)


def _array(tensor: Tensor) -> NDArray:
    """Array that shares the tensor's memory; bfloat16, which NumPy lacks, becomes uint16."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()
