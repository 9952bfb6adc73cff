"""The objectives of the two stages of TDC: comprehensive learning, then adaptive teaching."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.tdc import DistillationTargets, TDCOutput, TDCTeacherOutput
from ..nn.contrast import Contrast, contrast_scores
from .mil import cross_entropy
from .mkd import soft_label_loss


def tdc_teacher_terms(
    output: TDCTeacherOutput, y: Tensor, target: Tensor | None = None
) -> dict[str, Tensor]:
    """Unweighted terms of the first stage; the paper's weights are 1, and 3e-4 for "l1".

    Soft labels in `target` are not used: the first stage sees the omics itself.

    Returns
    -------
    dict of Tensor
        ``ce_path`` and, in training, ``kl_path`` (from the average to the network) of shape
        (B,). With omics also ``ce_omics, ce_fused, kl_omics, kl_fused`` and, with masking,
        ``kl_masked`` (sum of both passes) of shape (P,). ``l1`` of the omics network, (1,).
    """
    terms = {}
    labels = {"path": y, "omics": y[output.paired], "fused": y[output.paired]}
    average = None if output.average is None else output.average._asdict()
    for head, logits in output.heads._asdict().items():
        if logits is not None:
            terms[f"ce_{head}"] = F.cross_entropy(logits, labels[head], reduction="none")
            if average is not None:
                terms[f"kl_{head}"] = soft_label_loss(average[head], logits, temperature=1.0)
    if output.masked and output.average is not None and output.average.fused is not None:
        target = output.average.fused
        passes = [soft_label_loss(target, logits, temperature=1.0) for logits in output.masked]
        terms["kl_masked"] = torch.stack(passes).sum(dim=0)
    return terms | {"l1": output.omics_norm}


def contrastive_loss(scores: Tensor, similarity: Tensor, n_rows: int) -> Tensor:
    """Contrastive loss, ``-log(o+ / (o+ + m/n)) - sum_neg log((m/n) / (o- + m/n))`` (CRD).

    Noise-contrastive estimation with m negatives from n rows. The first term is the mean over
    the positives, weighted by their similarity. With m = 0 the loss is 0.

    Parameters
    ----------
    scores : Tensor of shape (b, p + m)
        ``exp(<row, anchor> / temperature) / Z`` of positives and negatives.
    similarity : Tensor of shape (b, p)
        At least 0, with a positive sum.
    n_rows : int

    Returns
    -------
    Tensor of shape (b,)
    """
    p = similarity.shape[1]
    positives, negatives = scores[:, :p], scores[:, p:]
    noise = negatives.shape[1] / n_rows
    attraction = -(positives / (positives + noise)).log()  # (b, p)
    repulsion = -(noise / (negatives + noise)).log().sum(dim=1)  # (b,)
    weighted = (similarity * attraction).sum(dim=1) / similarity.sum(dim=1)
    return weighted + repulsion


def discrepancy(student: Tensor, teacher: Tensor, y: Tensor, *, largest: float) -> Tensor:
    """How much more confident the teacher is, ``clip(conf_T - conf_S, 0, largest)`` (discrepancy).

    ``conf = log p_y - log max_{c != y} p_c``. No gradient. (b, K), (b, K), (b,) -> (b,)
    """
    return (_confidence(teacher, y) - _confidence(student, y)).clamp(0, largest)


@torch.no_grad()
def _confidence(logits: Tensor, y: Tensor) -> Tensor:
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).amax(dim=1)


def agreement(gradients: Tensor, *, threshold: float) -> Tensor:
    """Number of gradients with ``cos(g_m, g_k) > threshold``, itself included (GK-Refine).

    A zero gradient agrees with none. (M, B, d) -> (M, B)
    """
    directions = F.normalize(gradients, dim=2)
    cosine = torch.einsum("mbd,kbd->mkb", directions, directions)
    return (cosine > threshold).sum(dim=1)


def tdc_terms(
    output: TDCOutput,
    y: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    threshold: float = 0.25,
    max_discrepancy: float = 1.0,
) -> dict[str, Tensor]:
    """Terms of the second stage; the paper's weights are 1 for "kl" and 0.05 for "crd" terms.

    Each distillation term is multiplied, per bag, by its votes (GK-Refine): the number of terms,
    classification among them, whose gradient at f_S agrees with its own. The votes have no
    gradient and do not depend on the weights of the terms. Soft labels in `target`, (B, K), are for
    "ce".

    Returns
    -------
    dict of Tensor
        ``ce, kl_average, crd_average`` of shape (B,), and ``kl_teacher, crd_teacher`` of shape
        (P,) where a bag has omics. Without distillation targets ``ce`` alone.
    """
    terms = {"ce": cross_entropy(output.logits, y, target)}
    bags_of: dict[str, Tensor] = {}
    for name, aim in output.targets.items():
        own, own_y = output.logits[aim.bags], y[aim.bags]
        gap = discrepancy(own, aim.logits, own_y, largest=max_discrepancy)
        terms[f"kl_{name}"] = soft_label_loss(aim.logits, own, temperature=temperature)
        terms[f"crd_{name}"] = (1 + gap) * _contrast_loss(aim)
        bags_of |= {f"kl_{name}": aim.bags, f"crd_{name}": aim.bags}
    if not bags_of:
        return terms
    gradients = [
        torch.autograd.grad(values.sum(), output.feature, retain_graph=True)[0]
        for values in terms.values()
    ]
    votes = dict(zip(terms, agreement(torch.stack(gradients), threshold=threshold), strict=True))
    refined = {name: votes[name][bags] * terms[name] for name, bags in bags_of.items()}
    return terms | refined


def _contrast_loss(target: DistillationTargets) -> Tensor:
    """Sum of the contrastive losses of both directions, (b,)."""
    first, second = (
        contrastive_loss(_scores(c, target.temperature), c.similarity, target.n_rows)
        for c in target.contrasts
    )
    return first + second


def _scores(contrast: Contrast, temperature: float) -> Tensor:
    raw = contrast_scores(contrast.anchor, contrast.bank, contrast.rows, temperature)
    return raw / contrast.normaliser
