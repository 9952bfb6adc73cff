"""Integrated gradients: the mean gradient of a function along the line from a reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_VALUES_AT_ONCE = 2**22
_POINTS_PER_PART = 64  # the nodes of a rule of thousands of points take seconds to compute


def mean_gradient(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, *, n_steps: int
) -> Tensor:
    """Gradient of each output, averaged over the points of the line from `start` to `end`.

    Its inner product with ``end - start`` is the difference of the outputs at the two ends, up to
    the error of the quadrature (Gauss and Legendre's rule), which is zero for a linear function.

    Parameters
    ----------
    function : callable
        Maps s points, (s, *shape), to their outputs (s, k), each from its own point alone.
    start, end : Tensor of shape (*shape)
    n_steps : int
        Number of points at which the gradient is computed, at least.

    Returns
    -------
    Tensor of shape (k, *shape)

    References
    ----------
    Sundararajan, Taly, Yan. Axiomatic Attribution for Deep Networks. ICML 2017.

    Examples
    --------
    >>> square = lambda x: (x**2).sum(dim=1, keepdim=True)
    >>> mean_gradient(square, torch.zeros(2), torch.tensor([1.0, 3.0]), n_steps=2)
    tensor([[1., 3.]])
    """
    nodes, weights = _gauss_legendre(n_steps)
    shares = torch.as_tensor(nodes).to(start).split(_at_once(start))
    parts = torch.as_tensor(weights).to(start).split(_at_once(start))
    total: list[Tensor] = []
    for share, weight in zip(shares, parts, strict=True):
        along = share.view(-1, *[1] * start.dim())
        with torch.enable_grad():
            points = torch.lerp(start, end, along).requires_grad_()
            outputs = (function(points) * weight.unsqueeze(1)).sum(dim=0)  # (k,)
            gradients = [
                torch.autograd.grad(output, points, retain_graph=True)[0].sum(dim=0)
                for output in outputs
            ]
        total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
    return torch.stack(total)


@cache
def _gauss_legendre(n: int) -> tuple[NDArray, NDArray]:
    """Nodes in (0, 1) and weights of at least `n` points, in equal parts of at most 64 each."""
    n_parts = math.ceil(n / _POINTS_PER_PART)
    nodes, weights = np.polynomial.legendre.leggauss(math.ceil(n / n_parts))
    within = (np.arange(n_parts)[:, None] + (nodes + 1) / 2) / n_parts
    return within.ravel(), np.tile(weights / (2 * n_parts), n_parts)


def _at_once(point: Tensor) -> int:
    return max(1, _VALUES_AT_ONCE // max(1, point.numel()))
