"""The class-conditional memory: its components, their initialisation, updates and usage."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .segment import segment_mean


class ClassMemory(nn.Module):
    """Memory with `n_components` rows per class, which are used as directions (row / norm).

    Parameters
    ----------
    n_classes, n_components, dim : int
    trainable : bool
        Whether the losses train the rows.

    Attributes
    ----------
    rows : Parameter of shape (n_classes, n_components, dim)
    """

    def __init__(self, n_classes: int, n_components: int, dim: int, *, trainable: bool) -> None:
        super().__init__()
        shape = (n_classes, n_components, dim)
        self.rows = nn.Parameter(torch.empty(shape), requires_grad=trainable)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw random directions; K-means replaces them when training begins."""
        nn.init.normal_(self.rows, generator=generator)
        self.renormalize()

    def directions(self) -> Tensor:
        """Rows of length one, (n_classes, n_components, dim)."""
        return F.normalize(self.rows, dim=2)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Scale every row to length one in place."""
        self.rows.copy_(self.directions())

    def affinity(self, points: Tensor) -> Tensor:
        """Cosine of each point with each row, without gradient for the memory.

        (n, dim) -> (n, n_classes, n_components)
        """
        rows = self.directions().detach().flatten(0, 1)  # (K * m, dim)
        return (points @ rows.T).unflatten(1, self.rows.shape[:2])


def attention_scores(affinity: Tensor) -> Tensor:
    """Best match with a class minus best match with the other classes (Eq. 6).

    (n, n_classes, n_components) -> (n, 1) for two classes, class 1 (C+) against class 0;
    (n, n_classes) for more.
    """
    best = affinity.amax(dim=2)  # (n, K)
    n_classes = best.shape[1]
    if n_classes == 2:
        return best[:, 1:] - best[:, :1]
    own = torch.eye(n_classes, dtype=torch.bool, device=best.device)
    others = best.unsqueeze(1).masked_fill(own, -torch.inf).amax(dim=2)  # (n, K)
    return best - others


def spherical_kmeans(
    points: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    init: str = "random",
    n_iter: int = 20,
) -> Tensor:
    """Spherical K-means: cluster directions by cosine; an empty cluster keeps its center.

    Parameters
    ----------
    points : Tensor of shape (n, dim)
    n_clusters : int
        If there are fewer points, the remaining centers start as random directions.
    generator : torch.Generator
    init : {"random", "k-means++"}
        Start from random points, or from points drawn by their squared distance (k-means++).
    n_iter : int, default=20

    Returns
    -------
    Tensor of shape (n_clusters, dim)
        Rows of length one.
    """
    points = F.normalize(points, dim=1)
    centers = _first_centers(points, n_clusters, generator, init)
    for _ in range(n_iter):
        nearest = (points @ centers.T).argmax(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        occupied = torch.bincount(nearest, minlength=n_clusters) > 0
        centers = torch.where(occupied.unsqueeze(1), F.normalize(sums, dim=1), centers)
    return centers


def _first_centers(points: Tensor, n: int, generator: torch.Generator, init: str) -> Tensor:
    if len(points) < n:
        extra = torch.randn(n - len(points), points.shape[1], generator=generator)
        return torch.cat([points, F.normalize(extra.to(points), dim=1)])
    order = torch.randperm(len(points), generator=generator)
    if init == "random":
        return points[order[:n]]
    chosen = [points[order[0]]]
    distance = torch.full((len(points),), torch.inf, device=points.device)
    for _ in range(n - 1):
        distance = torch.minimum(distance, 1 - points @ chosen[-1]).clamp(min=1e-12)
        chosen.append(points[torch.multinomial(distance.cpu(), 1, generator=generator)[0]])
    return torch.stack(chosen)


@torch.no_grad()
def ema_update(
    memory: ClassMemory,
    projection: Tensor,
    omics_projection: Tensor | None,
    y: Tensor,
    momentum: float,
) -> None:
    """Move the rows of a bag's class toward its patches, ``c <- norm(m c + (1 - m) mean p)``.

    Parameters
    ----------
    memory : ClassMemory
    projection : Tensor of shape (n_instances, dim)
        Patch projections of the bag.
    omics_projection : Tensor of shape (dim,) or None
        The nearest row is also moved toward it.
    y : int Tensor
        Class of the bag.
    momentum : float
    """
    rows = memory.directions()[y]  # (m, dim)
    nearest = (projection @ rows.T).argmax(dim=1)
    count = torch.bincount(nearest, minlength=len(rows)).unsqueeze(1)
    mean = torch.zeros_like(rows).index_add_(0, nearest, projection) / count.clamp(min=1)
    rows = torch.where(count > 0, momentum * rows + (1 - momentum) * mean, rows)
    if omics_projection is not None:
        nearest_row = (F.normalize(rows, dim=1) @ omics_projection).argmax()
        rows[nearest_row] = momentum * rows[nearest_row] + (1 - momentum) * omics_projection
    memory.rows[y] = F.normalize(rows, dim=1)


def component_usage(affinity: Tensor, batch: Tensor, n_bags: int) -> Tensor:
    """Share of each bag's patches whose best match in a memory is each component.

    (n, n_classes, n_components) -> (n_bags, n_classes, n_components), which sums to one over
    the components. The mean over bags is the slide-balanced usage u of Fig. 3.
    """
    nearest = F.one_hot(affinity.argmax(dim=2), affinity.shape[2])
    return segment_mean(nearest.double(), batch, n_bags)


def active_ratio(usage: Tensor, threshold: float | None = None) -> float:
    """Share of all components used more than `threshold`, by default ``1 / (10 n)``.

    Parameters
    ----------
    usage : Tensor of shape (n_classes, n_components)
    """
    threshold = 1 / (10 * usage.shape[1]) if threshold is None else threshold
    return float((usage > threshold).double().mean())


def perplexity(usage: Tensor) -> Tensor:
    """Effective number of components per memory, ``exp(-sum u ln u)`` in [1, n].

    (n_classes, n_components) -> (n_classes,)
    """
    return torch.special.entr(usage.double()).sum(dim=1).exp()


@torch.no_grad()
def memory_geometry(memory: ClassMemory, start: Tensor) -> dict[str, float]:
    """Angles between the components and the angle by which they have moved.

    Parameters
    ----------
    memory : ClassMemory
    start : Tensor of shape (n_classes, n_components, dim)
        The directions at the start of training.

    Returns
    -------
    dict of float
        ``norm``: mean length of a row. ``cosine_within``: mean |cosine| of different rows of a
        class (0 for a single row). ``cosine_between``: mean over rows of the best match in
        another class. ``drift``: mean of 1 - cosine with the start.
    """
    rows = memory.directions()  # (K, m, d)
    k, m, _ = rows.shape
    cosine = torch.einsum("kid,ljd->kilj", rows, rows)
    own = torch.eye(k, dtype=torch.bool, device=rows.device).view(k, 1, k, 1)
    within = cosine.diagonal(dim1=0, dim2=2).abs().sum() - k * m
    return {
        "norm": float(memory.rows.norm(dim=2).mean()),
        "cosine_within": float(within / (k * m * max(m - 1, 1))),
        "cosine_between": float(cosine.masked_fill(own, -1.0).amax(dim=(2, 3)).mean()),
        "drift": float(1 - (rows * start).sum(dim=2).mean()),
    }
