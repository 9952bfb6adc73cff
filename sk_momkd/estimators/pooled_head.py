"""Logistic regression on pooled slides, whose logits are averaged with those of the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..nn.blocks import Blocks, iter_blocks

_C, _MAX_ITER = 0.01, 1000
_CLIP = 6.0  # standard deviations
_ROWS = 4096  # patches that are float64 at once


@dataclass(frozen=True, eq=False)
class PooledHead:
    """Logistic regression on the mean and the standard deviation of the patches of a slide.

    A slide with p features per patch has 2 p pooled features; these are z-scores over the training
    slides, clipped at six. The logits of a classifier are ``(1 - share)`` times those of its
    network and `share` times these.

    Attributes
    ----------
    share : float
        In [0, 1).
    center, spread : float64 ndarray of shape (2 * n_features,)
        Mean and standard deviation of the pooled features over the training slides.
    coef : float64 ndarray of shape (n_classes, 2 * n_features)
        By class number of the network, as `intercept`.
    intercept : float64 ndarray of shape (n_classes,)
    """

    share: float
    center: NDArray
    spread: NDArray
    coef: NDArray
    intercept: NDArray

    @classmethod
    def fit(cls, share: float, pooled: NDArray, targets: NDArray) -> Self:
        """Fit the regression by cross-entropy with soft labels.

        Parameters
        ----------
        share : float
        pooled : ndarray of shape (n_slides, 2 * n_features)
        targets : ndarray of shape (n_slides, n_classes)
            Labels, hard or soft, times the weight of each slide, whose mean is 1.
        """
        from sklearn.linear_model import LogisticRegression  # a model that predicts loads without
        from threadpoolctl import threadpool_limits

        from .soft_targets import weighted_copies

        center, spread = pooled.mean(axis=0, dtype=float), pooled.std(axis=0, dtype=float)
        spread[spread == 0] = 1.0
        z = np.clip((pooled - center) / spread, -_CLIP, _CLIP)
        slides, labels, weights = weighted_copies(targets)
        regression = LogisticRegression(C=_C, max_iter=_MAX_ITER)
        with threadpool_limits(1):  # more threads would add in another order
            regression.fit(z[slides], labels, sample_weight=weights)
        coef, intercept = regression.coef_, regression.intercept_
        if len(coef) == 1:  # of two classes: the difference of their logits
            coef = np.concatenate([-coef, coef]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
        return cls(float(share), center, spread, coef, intercept)

    def logits(self, x: Tensor | Blocks) -> Tensor:
        """Logits of the slide that consists of the patches `x`.

        (n, n_features) -> (n_classes,), float64
        """
        z = self._z_scores(torch.cat(_mean_and_spread(x)).cpu())
        return torch.from_numpy(self.coef) @ z + torch.from_numpy(self.intercept)

    def joined(self, network: Tensor, pooled: Tensor) -> Tensor:
        """Logits of the classifier, from those of its network and of the regression.

        (..., n_classes), (n_classes,) -> (..., n_classes)
        """
        return torch.lerp(network, pooled.to(network), self.share)

    def contributions(self, x: Tensor | Blocks, reference: Tensor) -> Tensor:
        """Contribution of each patch to the logits; a slide of reference patches has none.

        The mean is a sum over patches, and so is the standard deviation: its square is the mean of
        the squared distances. Both are exact; of a pooled feature that is clipped, each patch has
        the same share as before clipping.

        (n, n_features), (n_features,) -> (n, n_classes), float64
        """
        mean, spread = _mean_and_spread(x)
        pooled, reference = torch.cat([mean, spread]).cpu(), reference.double().cpu()
        start = torch.cat([reference, torch.zeros_like(reference)])
        change = self._z_scores(pooled) - self._z_scores(start)
        slope = torch.where(pooled == start, 0, change / (pooled - start))  # 1 / spread, or less
        weight = (torch.from_numpy(self.coef) * slope).to(x.device)
        of_mean, of_spread = weight.chunk(2, dim=1)
        of_square = of_spread / torch.where(spread == 0, 1, spread)
        reference = reference.to(x.device)
        parts = [
            (rows - reference) @ of_mean.T + (rows - mean) ** 2 @ of_square.T for rows in _rows(x)
        ]
        return torch.cat(parts).cpu() / len(x)

    def _z_scores(self, pooled: Tensor) -> Tensor:
        z = (pooled - torch.from_numpy(self.center)) / torch.from_numpy(self.spread)
        return z.clamp(-_CLIP, _CLIP)


def _mean_and_spread(x: Tensor | Blocks) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the patches, (n, n_features) -> (n_features,) each."""
    n, mean, squares = 0, torch.tensor(0.0), torch.tensor(0.0)
    for rows in _rows(x):
        middle = rows.mean(dim=0)
        variance = (rows - middle).square().mean(dim=0)  # a tenth of the time of torch.var_mean
        share = len(rows) / (n + len(rows))
        squares = squares + variance * len(rows) + (middle - mean) ** 2 * n * share
        mean = mean + (middle - mean) * share
        n += len(rows)
    return mean, (squares / n).sqrt()


def _rows(x: Tensor | Blocks) -> Iterator[Tensor]:
    """Blocks of patches in float64."""
    for _, block in iter_blocks(x):
        yield from (rows.double() for rows in block.split(_ROWS))
