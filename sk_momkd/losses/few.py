"""MoMKD's objective in compiled loops, for training on few patches; see `momkd.momkd_terms`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.momkd import MoMKDOutput
from ..nn.kernels import objective

NAMES = ("ce", "align_wsi", "memory", "align_omics", "mse")
_HARD = np.eye(2, dtype=np.float32)  # targets by label


class Given(NamedTuple):
    """What the terms have no gradient for."""

    labels: tuple[NDArray, ...]  # y (B,), target (B, 2), bag (n,), paired bags (P,)
    genes: NDArray  # (P, genes)
    constants: tuple[Any, ...]  # margin, beta, tau_agg
    flags: tuple[bool, ...]  # as `objective.terms` takes them


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Given, *compared: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        *inputs, omics, reconstruction = (tensor.detach().numpy() for tensor in compared)
        memory, bag = inputs[3], given.labels[2]
        n_bags, n_omics = len(inputs[0]), len(omics)
        sizes = (n_bags, n_bags, n_bags, n_omics, len(reconstruction))
        values = tuple(np.empty(size, np.float32) for size in sizes)
        ctx.saved = (
            np.empty((n_bags + n_omics, *memory.shape[:2]), np.float32),
            np.empty((len(bag), 2), np.int64),
            np.empty(memory.shape, np.float32),
            np.empty(memory.shape[:2], np.float32),
        )
        ctx.given = given
        ctx.save_for_backward(*compared)
        objective.terms(
            tuple(inputs),
            (omics, given.genes, reconstruction),
            given.labels,
            given.constants,
            given.flags,
            values,
            ctx.saved,
        )
        return tuple(map(torch.from_numpy, values))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *d_values: Tensor | None) -> Any:
        *inputs, omics, reconstruction = (x.detach().numpy() for x in ctx.saved_tensors)
        given, n_bags = ctx.given, len(inputs[0])
        sizes = (n_bags, n_bags, n_bags, len(omics), len(reconstruction))
        gradients = tuple(
            np.zeros(size, np.float32) if d is None else d.contiguous().numpy()
            for size, d in zip(sizes, d_values, strict=True)
        )
        d_compared = [np.empty(x.shape, np.float32) for x in (*inputs, omics, reconstruction)]
        objective.terms_backward(
            tuple(inputs),
            (omics, given.genes, reconstruction),
            given.labels,
            given.flags,
            ctx.saved,
            gradients,
            tuple(d_compared[:4]),
            tuple(d_compared[4:]),
        )
        ce, align_wsi, memory, align_omics, mse = (d is not None for d in d_values)
        # What no term in use compares gets no gradient, rather than zeros.
        reached = (ce, align_wsi, memory, align_wsi or memory or align_omics, align_omics, mse)
        return None, *(
            torch.from_numpy(d) if has else None for d, has in zip(d_compared, reached, strict=True)
        )


def terms_of_few(
    output: MoMKDOutput, target: Tensor | None, y: Tensor, constants: Any, flags: tuple[bool, ...]
) -> dict[str, Tensor]:
    """The terms of `momkd_terms` for two classes.

    Parameters
    ----------
    output : MoMKDOutput
    target : Tensor of shape (B, 2) or None
        Soft labels; None for `y`.
    y : int64 Tensor of shape (B,)
    constants : (margin, beta, tau_agg)
    flags : tuple of bool
        As `objective.terms` takes them.
    """
    none = output.logits.new_empty(0, output.projection.shape[1])
    projected, known, made = output.omics_projection, output.omics, output.reconstruction
    omics = none if projected is None else projected
    genes, reconstruction = (none, none) if known is None or made is None else (known, made)
    paired = np.flatnonzero(output.paired.numpy())
    labels = y.numpy()
    given = Given(
        (labels, _HARD[labels] if target is None else target.numpy(), output.batch.numpy(), paired),
        genes.numpy(),
        tuple(map(np.float32, constants)),
        flags,
    )
    compared = (output.logits, output.slide_projection, output.projection, output.memory)
    values = _Terms.apply(given, *(x.contiguous() for x in (*compared, omics, reconstruction)))
    present = (True, True, True, projected is not None, made is not None)
    return {name: value for name, value, has in zip(NAMES, values, present, strict=True) if has}
