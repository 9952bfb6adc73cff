"""AUROC and average precision by ranks, for many sets of patient weights at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Steps(NamedTuple):
    """Cumulated weights of positives and negatives, from the highest score down.

    Attributes
    ----------
    true, false : ndarray of shape (n_weights, n_thresholds)
        Weight of the positives (negatives) with a score of at least the threshold.
    """

    true: NDArray
    false: NDArray


def steps(positive: NDArray, score: NDArray, weights: NDArray) -> Steps:
    """Weights above each distinct score; patients of equal score enter together.

    Parameters
    ----------
    positive : bool ndarray of shape (n_patients,)
    score : ndarray of shape (n_patients,)
    weights : ndarray of shape (n_weights, n_patients)
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    weights = weights[:, order]
    true = np.cumsum(weights * positive[order], axis=1)[:, last]
    return Steps(true, np.cumsum(weights, axis=1)[:, last] - true)


def auroc(positive: NDArray, score: NDArray, weights: NDArray) -> NDArray:
    """Area under the ROC curve for each row of `weights`; NaN where a class has no weight.

    Examples
    --------
    >>> import numpy as np
    >>> auroc(np.array([False, True, True]), np.array([0.2, 0.1, 0.7]), np.ones((1, 3)))
    array([0.5])
    """
    return _area(steps(positive, score, weights))


def _area(step: Steps) -> NDArray:
    new = np.diff(step.true, axis=1, prepend=0)
    before = step.false - np.diff(step.false, axis=1, prepend=0) / 2  # a tie counts half
    n_true, n_false = step.true[:, -1], step.false[:, -1]
    return 1 - ratio((new * before).sum(axis=1), n_true * n_false)


def average_precision(positive: NDArray, score: NDArray, weights: NDArray) -> NDArray:
    """Sum over thresholds of precision times gain in recall (no interpolation)."""
    step = steps(positive, score, weights)
    precision = np.nan_to_num(ratio(step.true, step.true + step.false))
    new = np.diff(step.true, axis=1, prepend=0)
    both = np.where(step.false[:, -1] > 0, step.true[:, -1], 0)
    return ratio((precision * new).sum(axis=1), both)


def one_against_rest(measure: object, y: NDArray, proba: NDArray, weights: NDArray) -> NDArray:
    """`measure` of the positive class, or its mean over classes where there are more than two."""
    if not callable(measure):
        raise TypeError(f"measure must be a function, got {type(measure).__name__}.")
    if proba.shape[1] == 2:
        return measure(y == 1, proba[:, 1], weights)
    each = [measure(y == k, proba[:, k], weights) for k in range(proba.shape[1])]
    return np.mean(each, axis=0)


def ratio(top: NDArray, bottom: NDArray) -> NDArray:
    """Quotient, NaN where `bottom` is zero."""
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def placements(positive: NDArray, score: NDArray) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC, by midranks in O(n log n).

    Returns
    -------
    of_positives : ndarray of shape (n_positives,)
        Share of the negatives that each positive outranks, ties counted half.
    of_negatives : ndarray of shape (n_negatives,)
        Share of the positives that outrank each negative. Both means are the AUROC.

    References
    ----------
    .. [1] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
       more correlated receiver operating characteristic curves", Biometrics 44, 1988.
    .. [2] X. Sun, W. Xu, "Fast implementation of DeLong's algorithm", IEEE SPL 21, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> placements(np.array([False, True, True]), np.array([0.2, 0.1, 0.7]))
    (array([0., 1.]), array([0.5]))
    """
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    outranked = _mid(below, score[positive])
    outranking = len(above) - _mid(above, score[~positive])
    return outranked / max(len(below), 1), outranking / max(len(above), 1)


def _mid(ranked: NDArray, score: NDArray) -> NDArray:
    """How many of `ranked` lie below each score, equals counted half."""
    return (np.searchsorted(ranked, score, "left") + np.searchsorted(ranked, score, "right")) / 2
