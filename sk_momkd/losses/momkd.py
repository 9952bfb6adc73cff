"""The objective of MoMKD, term by term; each term has one value per bag.

Notation: f projections of length one, C the memory rows (K, m, D_N), c^ = c / |c|.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.momkd import MoMKDOutput
from ..nn.segment import segment_mean, true_positions


def alignment_margin(f: Tensor, memory: Tensor, y: Tensor, *, tau_agg: float) -> Tensor:
    """Margin ``Delta_y = phi(f, C^y) - phi(f, other rows) + ln(K - 1) / tau_agg`` (Eq. 3-4).

    ``phi(f, C) = (1 / tau_agg) log sum_j exp(tau_agg f . c^_j)``; for two classes this is the
    paper's signed Delta. (B, D_N), (K, m, D_N), (B,) -> (B,)
    """
    cosine = torch.einsum("bd,kmd->bkm", f, F.normalize(memory, dim=2))
    energy = (tau_agg * cosine).logsumexp(dim=2)  # (B, K)
    own = F.one_hot(y, len(memory)).bool()
    others = energy.masked_fill(own, -torch.inf).logsumexp(dim=1)
    return (
        energy.gather(1, y.unsqueeze(1)).squeeze(1) - others + math.log(len(memory) - 1)
    ) / tau_agg


def alignment_loss(
    f: Tensor, memory: Tensor, y: Tensor, *, margin: float, beta: float, tau_agg: float
) -> Tensor:
    """Alignment with the memory of the own class, ``softplus(beta (margin - Delta_y))`` (Eq. 5).

    (B, D_N), (K, m, D_N), (B,) -> (B,)
    """
    delta = alignment_margin(f, memory, y, tau_agg=tau_agg)
    return F.softplus(beta * (margin - delta))


def soft_alignment_loss(
    f: Tensor, memory: Tensor, target: Tensor, *, margin: float, beta: float, tau_agg: float
) -> Tensor:
    """Alignment with a soft label, ``sum_c t_c softplus(beta (margin - Delta_c))`` (ours).

    (B, D_N), (K, m, D_N), (B, K) -> (B,)
    """
    align = {"margin": margin, "beta": beta, "tau_agg": tau_agg}
    losses = [
        alignment_loss(f, memory, torch.full_like(target[:, 0], c, dtype=torch.int64), **align)
        for c in range(len(memory))
    ]
    return (target * torch.stack(losses, dim=1)).sum(dim=1)


def reconstruction_loss(omics: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean squared error over the genes, ``mean_g (o_g - o^_g)^2`` (L_mse).

    (P, G), (P, G) -> (P,)
    """
    return (omics - reconstruction).square().mean(dim=1)


def commitment_loss(
    projection: Tensor,
    memory: Tensor,
    y: Tensor,
    batch: Tensor,
    *,
    assignment: str = "cosine",
    reduction: str = "mean",
    memories: str = "label",
) -> Tensor:
    """Distance of the patches to their nearest rows, ``mean_i |p_i - sg(c_k)|^2`` (Eq. 10).

    ``reduction="mean"`` also averages over the dimensions, as the authors' code does; ``"sum"``
    is as printed. ``assignment="cosine"`` takes the rows as directions, ``"euclidean"`` as they
    are. ``memories="label"`` takes the nearest row of the label's memory, as the authors' code
    does, ``"all"`` that of all memories, as printed. The paper prints the symbol of the slide's
    vector with the index of a patch; it is p here and in the authors' code.
    (n, D_N), (K, m, D_N), (B,), (n,) -> (B,)
    """
    rows = memory.detach()
    rows = F.normalize(rows, dim=2) if assignment == "cosine" else rows
    own = y[batch] if memories == "label" else None
    square = (projection - _nearest_rows(projection.detach(), rows, own)).square()
    per_patch = square.mean(dim=1) if reduction == "mean" else square.sum(dim=1)
    return segment_mean(per_patch, batch, len(y))


def _nearest_rows(points: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
    """Euclidean-nearest row to each point, of the memory `own` (n,) names or of all: (n, D_N)."""
    k, m, _ = rows.shape
    flat = rows.flatten(0, 1)  # (K * m, D_N)
    distance = flat.square().sum(dim=1) - 2 * points @ flat.T  # (n, K * m), short of |p|^2
    if own is None:
        return flat[distance.argmin(dim=1)]
    which = own.view(-1, 1, 1).expand(-1, 1, m)
    nearest = distance.unflatten(1, (k, m)).gather(1, which).squeeze(1).argmin(dim=1)
    return rows[own, nearest]


def orthogonality_loss(
    memory: Tensor, y: Tensor, *, reduction: str = "mean", memories: str = "label"
) -> Tensor:
    """Squared cosines between different rows of a memory, ``sum_{i != j} cos^2`` (Eq. 10).

    ``reduction="mean"`` is ``10 (sum_ij cos^2 / m^2 - 1 / m)``, as in the authors' code;
    ``"sum"`` is as printed. ``memories="label"`` takes the label's memory,
    ``"all"`` the sum over all. (K, m, D_N), (B,) -> (B,)
    """
    rows = F.normalize(memory, dim=2)
    m = memory.shape[1]
    squares = (rows @ rows.transpose(1, 2)).square().sum(dim=(1, 2))  # (K,)
    per_class = 10 * (squares / m**2 - 1 / m) if reduction == "mean" else squares - m
    return per_class[y] if memories == "label" else per_class.sum().expand(len(y))


def momkd_terms(
    output: MoMKDOutput,
    y: Tensor,
    target: Tensor | None = None,
    *,
    margin: float = 0.3,
    beta: float = 20.0,
    tau_agg: float = 5.0,
    assignment: str = "cosine",
    commit_reduction: str = "mean",
    commit_memories: str = "label",
    ortho_reduction: str = "mean",
    ortho_memories: str = "label",
    teacher_alignment: bool = False,
) -> dict[str, Tensor]:
    """Unweighted terms of the objective (Eq. 9).

    The omics terms are of the paired bags only. Soft labels in `target`, (B, K), take the place of
    `y` in the cross-entropy and, with `teacher_alignment`, in the alignment of slides.

    Returns
    -------
    dict of Tensor
        ``ce, align_wsi, memory`` of shape (B,) and, where a bag has omics, ``mse, align_omics``
        of shape (P,). ``memory`` is commitment + orthogonality (Eq. 10).
    """
    memory = output.memory
    if output.few:
        from .few import terms_of_few

        flags = (
            assignment == "cosine",
            commit_reduction == "mean",
            commit_memories == "label",
            ortho_reduction == "mean",
            ortho_memories == "label",
            teacher_alignment,
        )
        return terms_of_few(output, target, y, (margin, beta, tau_agg), flags)
    target = F.one_hot(y, len(memory)).float() if target is None else target
    align = {"margin": margin, "beta": beta, "tau_agg": tau_agg}
    commitment = commitment_loss(
        output.projection,
        memory,
        y,
        output.batch,
        assignment=assignment,
        reduction=commit_reduction,
        memories=commit_memories,
    )
    orthogonality = orthogonality_loss(
        memory, y, reduction=ortho_reduction, memories=ortho_memories
    )
    slide = output.slide_projection
    terms = {
        "ce": F.cross_entropy(output.logits, target.to(output.logits.dtype), reduction="none"),
        "align_wsi": soft_alignment_loss(slide, memory, target, **align)
        if teacher_alignment
        else alignment_loss(slide, memory, y, **align),
        "memory": commitment + orthogonality,
    }
    if output.omics_projection is not None:
        paired_y = y[true_positions(output.paired, len(output.omics_projection))]
        terms["align_omics"] = alignment_loss(output.omics_projection, memory, paired_y, **align)
    if output.omics is not None and output.reconstruction is not None:
        terms["mse"] = reconstruction_loss(output.omics, output.reconstruction)
    return terms
