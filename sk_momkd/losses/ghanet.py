"""The objective of G-HANet: classification, and reconstruction group by group of genes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.ghanet import GHANetOutput
from .mil import cross_entropy


def scaled_cosine_loss(reconstruction: Tensor, omics: Tensor) -> Tensor:
    """Scaled cosine error of a group's expression, ``(1 - cos)^3`` (SCE).

    (P, G), (P, G) -> (P,)
    """
    return (1 - F.cosine_similarity(reconstruction, omics, dim=1)) ** 3


def squared_error(reconstruction: Tensor, omics: Tensor) -> Tensor:
    """Mean squared error over the genes of a group, ``mean_g (o_g - o^_g)^2`` (MSE).

    (P, G), (P, G) -> (P,)
    """
    return (reconstruction - omics).square().mean(dim=1)


def ghanet_terms(
    output: GHANetOutput, y: Tensor, target: Tensor | None = None
) -> dict[str, Tensor]:
    """Unweighted terms of the objective; the paper's weights are 1, 0.3 and 0.3.

    Returns
    -------
    dict of Tensor
        ``ce`` of shape (B,) and, where a bag has omics, ``sce, mse`` of shape (P,), sums over
        the groups of genes.
    """
    terms = {"ce": cross_entropy(output.logits, y, target)}
    if output.omics is None or output.reconstruction is None:
        return terms
    parts = (t.split(output.group_sizes, dim=1) for t in (output.reconstruction, output.omics))
    groups = list(zip(*parts, strict=True))
    terms["sce"] = torch.stack([scaled_cosine_loss(*group) for group in groups]).sum(dim=0)
    terms["mse"] = torch.stack([squared_error(*group) for group in groups]).sum(dim=0)
    return terms
