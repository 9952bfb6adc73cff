"""How the features of the training slides are spread, and how far another slide lies from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_FEWEST = 10  # slides; of fewer, the spread is too uncertain
_MOST_SPREADS = 8.0  # what one feature counts at most, so that a few odd ones do not decide
_SMALLEST = 1e-6  # spread in units of the mean, for features that are the same in all slides
_WITHIN = 0.9  # share of the training slides that lie within `usual`
_ROWS = 1024  # slides whose distances are computed at once


@dataclass(frozen=True, eq=False)
class FeatureSummary:
    """Mean patches of the training slides: their mean and spread by feature, and usual distances.

    Attributes
    ----------
    mean : float32 ndarray of shape (n_features,)
        Mean over the slides of their mean patches.
    spread : float32 ndarray of shape (n_features,)
        Standard deviation of the mean patches between slides.
    within : float32 ndarray of shape (n_features,)
        Variance of patches within a slide, mean over the slides.
    inverse_size : float
        Mean over the slides of 1 / number of patches.
    usual : float
        Distance within which 90 % of the training slides lie, each from the others.

    Notes
    -----
    The distance of a slide is the root mean square over the features of the difference between its
    mean patch and `mean`, in units of `spread`, each feature up to 8. A slide with fewer patches
    than the training slides may differ by more, by the variance of patches within slides.
    """

    mean: NDArray
    spread: NDArray
    within: NDArray
    inverse_size: float
    usual: float

    @classmethod
    def of(cls, means: NDArray, within: NDArray, sizes: NDArray) -> Self | None:
        """Summary of slides; None of fewer than ten, or where their variances overflow.

        Parameters
        ----------
        means : ndarray of shape (n_slides, n_features)
            Mean patch of each slide.
        within : ndarray of shape (n_features,)
            Variance of patches within a slide, mean over the slides.
        sizes : ndarray of shape (n_slides,)
            Number of patches of each slide.
        """
        if len(means) < _FEWEST:
            return None
        mean = means.mean(axis=0, dtype=np.float64)
        spread = means.std(axis=0, ddof=1, dtype=np.float64)
        if not all(np.isfinite(values).all() for values in (mean, spread, within)):
            return None
        inverse_size = float(np.mean(1 / sizes))
        parts = [slice(start, start + _ROWS) for start in range(0, len(means), _ROWS)]
        more = _from_small_bags(within, sizes, inverse_size)
        distances = [
            _distance(*_without_itself(means[rows], mean, spread, len(means)), mean, more[rows])
            for rows in parts
        ]
        usual = float(np.quantile(np.concatenate(distances), _WITHIN))
        single = [values.astype(np.float32) for values in (mean, spread, within)]
        return cls(single[0], single[1], single[2], inverse_size, usual)

    def distance(self, mean_patch: NDArray, size: int) -> float:
        """Distance of a slide with this mean patch and number of patches."""
        mean = self.mean.astype(np.float64)
        more = _from_small_bags(self.within, np.array([size]), self.inverse_size)
        variance = self.spread.astype(np.float64) ** 2
        return float(_distance((mean_patch - mean)[None], variance, mean, more)[0])


def _without_itself(
    means: NDArray, mean: NDArray, spread: NDArray, n: int
) -> tuple[NDArray, NDArray]:
    """Difference of each slide from the mean of the others, and the variance of the others."""
    difference = means - mean
    variance = ((n - 1) * spread**2 - n / (n - 1) * difference**2) / (n - 2)
    return difference * n / (n - 1), variance


def _from_small_bags(within: NDArray, sizes: NDArray, inverse_size: float) -> NDArray:
    """Variance that the mean of few patches has beyond that of the training slides."""
    return np.maximum(1 / sizes - inverse_size, 0)[:, None] * within


def _distance(difference: NDArray, variance: NDArray, mean: NDArray, more: NDArray) -> NDArray:
    smallest = (_SMALLEST * np.abs(mean)) ** 2 + np.finfo(np.float32).tiny
    spreads = np.abs(difference) / np.sqrt(np.maximum(variance, smallest) + more)
    return np.sqrt((np.minimum(spreads, _MOST_SPREADS) ** 2).mean(axis=1))
