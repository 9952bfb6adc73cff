"""The objective of MKD, term by term, over the bags with omics of a batch.

Notation: f features, z logits, of the student P and the teachers G (omics) and M (both).
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.mkd import MKDOutput
from .mil import cross_entropy


def similarity_loss(a: Tensor, c: Tensor) -> Tensor:
    """Difference of two networks' similarities of bags, ``|R(aa^T) - R(cc^T)|^2 / B^2`` (SP).

    R scales the rows of the Gram matrix to length one. (B, d), (B, d) -> ()
    """
    difference = F.normalize(a @ a.T, dim=1) - F.normalize(c @ c.T, dim=1)
    return difference.square().sum() / len(a) ** 2


def soft_label_loss(target: Tensor, learner: Tensor, *, temperature: float) -> Tensor:
    """Divergence at temperature T, ``T^2 sum_c p_target log(p_target / p_learner)`` (KL_T).

    The target has no gradient. (B, K), (B, K) -> (B,)
    """
    p = (target.detach() / temperature).log_softmax(dim=1)
    q = (learner / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1)


def overlap_loss(a: Tensor, c: Tensor) -> Tensor:
    """Absolute value of the mean inner product, ``|mean_b <a_b, c_b>|`` (orthogonality).

    The mean comes first: products of opposite sign cancel over the batch. (B, d) twice -> ()
    """
    return (a * c).sum(dim=1).mean().abs()


def coral_loss(a: Tensor, c: Tensor) -> Tensor:
    """Difference of moments, ``mean (mu_a - mu_c)^2 + mean (cov_a - cov_c)^2`` (CORAL).

    The covariances are unbiased and need two bags. (B, d), (B, d) -> ()
    """
    means = (a.mean(dim=0) - c.mean(dim=0)).square().mean()
    return means + (_covariance(a) - _covariance(c)).square().mean()


def _covariance(f: Tensor) -> Tensor:
    centred = f - f.mean(dim=0)
    return centred.T @ centred / (len(f) - 1)


def mkd_terms(
    output: MKDOutput, y: Tensor, target: Tensor | None = None, *, temperature: float = 4.0
) -> dict[str, Tensor]:
    """Unweighted terms of the objective; the default weights are 1, and 1/6 for orthogonality.

    The batch is the paper's group: "skd" carries the factor B, the number P of its bags with
    omics. "skd" and "coral" compare bags and are left out with fewer than two such bags; with
    ``batch_size=1`` they never occur. Accumulation over steps does not enlarge the group. Soft
    labels in `target`, (B, K), are for "ce" alone: the other networks see the omics themselves.

    Returns
    -------
    dict of Tensor
        ``ce`` of shape (B,). With omics also ``ce_omics, ce_joint, clod`` of shape (P,) and
        ``orthogonality, skd, coral`` of shape (1,), one value for the group.
    """
    terms = {"ce": cross_entropy(output.logits, y, target)}
    f_g, z_g = output.omics_feature, output.omics_logits
    f_m, z_m = output.joint_feature, output.joint_logits
    if f_g is None or z_g is None or f_m is None or z_m is None:
        return terms
    f_p, z_p = output.feature[output.paired], output.logits[output.paired]
    paired_y = y[output.paired]
    routes = (
        (z_m, z_p),
        (z_p, z_m),
        (z_g, z_p),
        (z_p, z_g),
    )  # (target, learner); the teachers do not learn from each other
    terms["ce_omics"] = F.cross_entropy(z_g, paired_y, reduction="none")
    terms["ce_joint"] = F.cross_entropy(z_m, paired_y, reduction="none")
    terms["clod"] = _sum([soft_label_loss(*route, temperature=temperature) for route in routes])
    return terms | _group_terms(f_p, f_g, f_m)


def _group_terms(f_p: Tensor, f_g: Tensor, f_m: Tensor) -> dict[str, Tensor]:
    pairs = list(combinations((f_p, f_g, f_m), 2))
    terms = {"orthogonality": _sum([overlap_loss(a, c) for a, c in pairs]).view(1)}
    if len(f_p) > 1:
        skd = similarity_loss(f_p, f_m) + similarity_loss(f_p, f_g)
        terms["skd"] = len(f_p) * skd.view(1)
        terms["coral"] = _sum([coral_loss(a, c) for a, c in pairs]).view(1)
    return terms


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(dim=0)
