"""Metrics of patients' predictions, for many sets of patient weights at once."""

from __future__ import annotations

from collections.abc import Callable
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


N_BINS = 10  # of equal width, for the calibration error
_ROWS_AT_ONCE = 256  # bootstrap draws in memory together
_DECISIONS = ("balanced_accuracy", "f1_macro", "accuracy", "sensitivity", "specificity")

Scorer = Callable[[NDArray], NDArray]


def scorers(y: NDArray, proba: NDArray, tuned: NDArray | None = None) -> dict[str, Scorer]:
    """Metrics by name, each a function of weights (n_weights, n_patients).

    Parameters
    ----------
    y : int ndarray of shape (n_patients,)
        Class numbers; of two classes, 1 is the positive one.
    proba : ndarray of shape (n_patients, n_classes)
    tuned : int ndarray of shape (n_patients,), optional
        Classes decided at a threshold of its own; two classes only.
    """
    found: dict[str, Scorer] = {
        "auroc": lambda w: one_against_rest(auroc, y, proba, w),
        "auprc": lambda w: one_against_rest(average_precision, y, proba, w),
    }
    n_classes = proba.shape[1]
    decided = {"": proba.argmax(axis=1)} | ({} if tuned is None else {"_tuned": tuned})
    for suffix, chosen in decided.items():
        for name in _DECISIONS if n_classes == 2 else _DECISIONS[:3]:
            found[name + suffix] = _decision(name, y, chosen, n_classes)
    found["brier"] = _mean_of(_squared_error(y, proba))
    found["calibration_error"] = _calibration(y, proba)
    return found


def score(scorer: Scorer, weights: NDArray) -> NDArray:
    """`scorer` of all rows of `weights`, in blocks that fit in memory."""
    parts = [scorer(weights[i : i + _ROWS_AT_ONCE]) for i in range(0, len(weights), _ROWS_AT_ONCE)]
    return np.concatenate(parts)


def metric_names(n_classes: int) -> list[str]:
    """All metrics in the order of the tables."""
    any_y, any_proba = np.zeros(1, int), np.full((1, n_classes), 1 / n_classes)
    return list(scorers(any_y, any_proba, any_y if n_classes == 2 else None))


def best_threshold(positive: NDArray, score: NDArray) -> float:
    """Threshold (score >= threshold is positive) with the highest F1 of the positive class.

    The candidates are the scores that occur, from the lowest up; the first maximum is taken.

    Examples
    --------
    >>> import numpy as np
    >>> best_threshold(np.array([False, True, False, True]), np.array([0.1, 0.3, 0.4, 0.9]))
    0.3
    """
    step = steps(positive, score, np.ones((1, len(score))))
    true, called = step.true[0], step.true[0] + step.false[0]
    f1 = 2 * true / (called + positive.sum())
    candidates = np.unique(score)
    return float(candidates[np.argmax(f1[::-1])])


def _decision(name: str, y: NDArray, chosen: NDArray, n_classes: int) -> Scorer:
    cell = np.eye(n_classes**2)[y * n_classes + chosen]
    measure = _FROM_COUNTS[name]

    def scorer(weights: NDArray) -> NDArray:
        return measure((weights @ cell).reshape(-1, n_classes, n_classes))

    return scorer


def _recall(counts: NDArray) -> NDArray:
    return ratio(np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2))


def _balanced_accuracy(counts: NDArray) -> NDArray:
    return _recall(counts).mean(axis=1)  # NaN where a class is absent


def _f1_macro(counts: NDArray) -> NDArray:
    hits = np.diagonal(counts, axis1=1, axis2=2)
    return np.nan_to_num(ratio(2 * hits, counts.sum(axis=1) + counts.sum(axis=2))).mean(axis=1)


def _accuracy(counts: NDArray) -> NDArray:
    return ratio(np.trace(counts, axis1=1, axis2=2), counts.sum(axis=(1, 2)))


_FROM_COUNTS: dict[str, Scorer] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "accuracy": _accuracy,
    "sensitivity": lambda counts: _recall(counts)[:, 1],
    "specificity": lambda counts: _recall(counts)[:, 0],
}


def _squared_error(y: NDArray, proba: NDArray) -> NDArray:
    """Per patient: of the positive class, or summed over classes where there are more than two."""
    error = (proba - np.eye(proba.shape[1])[y]) ** 2
    return error[:, 1] if proba.shape[1] == 2 else error.sum(axis=1)


def _mean_of(values: NDArray) -> Scorer:
    return lambda weights: ratio(weights @ values, weights.sum(axis=1))


def _calibration(y: NDArray, proba: NDArray) -> Scorer:
    """Mean distance of predicted from observed frequency, weighted by the patients of a bin.

    Ten bins of equal width over the probability of the positive class; with more than two
    classes, over the probability of the predicted class, against how often it is right.
    """
    if proba.shape[1] == 2:
        stated, happened = proba[:, 1], y == 1
    else:
        stated, happened = proba.max(axis=1), proba.argmax(axis=1) == y
    bins = np.eye(N_BINS)[np.clip((stated * N_BINS).astype(int), 0, N_BINS - 1)]
    excess = bins * (stated - happened)[:, None]
    return lambda weights: ratio(np.abs(weights @ excess).sum(axis=1), weights.sum(axis=1))
