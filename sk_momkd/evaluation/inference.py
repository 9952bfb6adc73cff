"""Tests of AUROC differences: DeLong's variance and Holm's correction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from .ranking import placements


class DeLong(NamedTuple):
    """Two AUROCs on the same patients.

    Attributes
    ----------
    difference : float
        First minus second.
    standard_error : float
    p_value : float
        Two-sided, normal; 1 where the scores rank all patients alike, NaN where the variance is 0
        although the AUROCs differ.
    correlation : float
        Of the two AUROCs, NaN where one has no variance.
    """

    difference: float
    standard_error: float
    p_value: float
    correlation: float


def delong_test(y: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """Compare two AUROCs of the same patients by DeLong's test.

    Parameters
    ----------
    y : array-like of shape (n_patients,)
        True or 1 for the positive class.
    first, second : array-like of shape (n_patients,) or (n_repeats, n_patients)
        Scores. With repeats the mean AUROC is compared: its structural components are the means
        of those of the repeats.

    Returns
    -------
    DeLong
        ``difference, standard_error, p_value, correlation``.

    Raises
    ------
    ValueError
        If a class has fewer than two patients, or shapes differ.

    Notes
    -----
    The test takes the scores as fixed. Chance in training (seeds, folds) is not in its p-value.

    Examples
    --------
    >>> from sk_momkd.evaluation.inference import delong_test
    >>> y = [0, 0, 0, 1, 1, 1]
    >>> delong_test(y, [1, 2, 3, 4, 5, 6], [1, 5, 3, 4, 2, 6]).difference.round(3)
    np.float64(0.333)
    """
    positive = np.asarray(y).astype(bool)
    scores = [np.atleast_2d(np.asarray(s, dtype=float)) for s in (first, second)]
    if positive.ndim != 1 or any(s.shape[-1] != len(positive) or s.ndim != 2 for s in scores):
        raise ValueError(
            f"y has shape {positive.shape}, the scores {scores[0].shape} and {scores[1].shape}: "
            "expected one label and one score per patient (and repeat)."
        )
    if min(positive.sum(), (~positive).sum()) < 2:
        raise ValueError("DeLong's test needs at least two patients of each class.")
    pairs = [[placements(positive, s) for s in each] for each in scores]
    above, below = (
        np.stack([np.mean([pair[side] for pair in each], axis=0) for each in pairs])
        for side in (0, 1)
    )
    return _compare(above, below)


def _compare(above: NDArray, below: NDArray) -> DeLong:
    """Test from the components of positives and of negatives, (2, n) each."""
    covariance = np.cov(above) / above.shape[1] + np.cov(below) / below.shape[1]
    gap = np.subtract(*above.mean(axis=1))
    spread = sum(np.var(c[0] - c[1], ddof=1) / c.shape[1] for c in (above, below))
    error = np.sqrt(spread)
    same = 1.0 if abs(gap) < 1e-12 else np.nan
    p = 2 * norm.sf(abs(gap) / error) if error > 1e-12 else same
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = covariance[0, 1] / scale if scale > 1e-24 else np.nan
    return DeLong(gap, error, float(p), float(correlation))


def holm(p_values: ArrayLike) -> NDArray:
    """P-values corrected by Holm's step-down method; NaN stays NaN and is not counted.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)

    Returns
    -------
    ndarray of shape (n_tests,)

    Examples
    --------
    >>> from sk_momkd.evaluation.inference import holm
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected
