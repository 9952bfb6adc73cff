"""Metrics of patients' predictions, for many sets of patient weights at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

N_BINS = 10  # of equal width, for the calibration error
_BLOCK_SIZE = 256  # rows of weights that are in memory together

RankMetric = Callable[[NDArray, NDArray, NDArray], NDArray]


def patient_metrics(
    y: NDArray,
    proba: NDArray,
    weights: NDArray,
    tuned: NDArray | None = None,
    *,
    predicted: NDArray | None = None,
    absent: str = "nan",
) -> dict[str, NDArray]:
    """Compute all metrics for each row of `weights`.

    Parameters
    ----------
    y : int ndarray of shape (n_patients,)
        Class numbers; of two classes, 1 is the positive one.
    proba : ndarray of shape (n_patients, n_classes)
    weights : ndarray of shape (n_weights, n_patients)
        How often each patient counts, e.g. in a bootstrap sample.
    tuned : int ndarray of shape (n_patients,), optional
        Classes predicted at tuned thresholds, for two classes. Without them the metrics with the
        suffix ``_tuned`` are NaN.
    predicted : int ndarray of shape (n_patients,), optional
        Classes that the model's `predict` says; by default the most probable ones.
    absent : {"nan", "skip"}, default="nan"
        Whether a class without patients in `y` makes means over classes NaN, or is left out.

    Returns
    -------
    dict of str to ndarray of shape (n_weights,)
        In the order of the result tables: ``auroc``, ``auprc``, ``balanced_accuracy``,
        ``f1_macro``, ``accuracy``, for two classes ``sensitivity``, ``specificity`` and the last
        five with the suffix ``_tuned``, then ``brier`` and ``calibration_error``.

    Examples
    --------
    >>> import numpy as np
    >>> y, positive = np.array([0, 0, 1]), np.array([0.2, 0.6, 0.7])
    >>> found = patient_metrics(y, np.stack([1 - positive, positive], axis=1), np.ones((1, 3)))
    >>> found["auroc"], found["sensitivity"], found["specificity"]
    (array([1.]), array([1.]), array([0.5]))
    """
    n_classes = proba.shape[1]
    shown = range(n_classes) if absent == "nan" else np.unique(y).tolist()
    decided = (proba.argmax(axis=1) if predicted is None else predicted, tuned)
    blocks = [_metrics_of_block(y, proba, block, decided, shown) for block in blocks_of(weights)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _metrics_of_block(
    y: NDArray,
    proba: NDArray,
    weights: NDArray,
    decided: tuple[NDArray, NDArray | None],
    shown: Sequence[int],
) -> dict[str, NDArray]:
    predicted, tuned = decided
    n_classes, total = proba.shape[1], weights.sum(axis=1)
    values = {
        "auroc": one_vs_rest(auroc, y, proba, weights, shown),
        "auprc": one_vs_rest(average_precision, y, proba, weights, shown),
    }
    values |= _decision_metrics(y, predicted, n_classes, weights, shown)
    if n_classes == 2:
        found = _decision_metrics(y, y if tuned is None else tuned, n_classes, weights, shown)
        unknown = np.full(len(weights), np.nan)
        values |= {f"{k}_tuned": unknown if tuned is None else v for k, v in found.items()}
    values["brier"] = divide_or_nan(weights @ _squared_error(y, proba), total)
    stated, happened = calibration_pairs(y, proba)
    excess = np.eye(N_BINS)[calibration_bin(stated)] * (stated - happened)[:, None]
    values["calibration_error"] = divide_or_nan(np.abs(weights @ excess).sum(axis=1), total)
    return values


def blocks_of(weights: NDArray) -> Iterator[NDArray]:
    """Rows of `weights`, a part that fits into memory at a time."""
    for start in range(0, len(weights), _BLOCK_SIZE):
        yield weights[start : start + _BLOCK_SIZE]


def _decision_metrics(
    y: NDArray, predicted: NDArray, n_classes: int, weights: NDArray, shown: Sequence[int]
) -> dict[str, NDArray]:
    cell = np.eye(n_classes**2)[y * n_classes + predicted]
    counts = (weights @ cell).reshape(-1, n_classes, n_classes)  # true class by predicted class
    correct = np.diagonal(counts, axis1=1, axis2=2)
    recall = divide_or_nan(correct, counts.sum(axis=2))
    f1 = divide_or_nan(2 * correct, counts.sum(axis=1) + counts.sum(axis=2))
    values = {
        "balanced_accuracy": recall[:, shown].mean(axis=1),  # NaN where a class is not drawn
        "f1_macro": np.nan_to_num(f1).mean(axis=1),
        "accuracy": divide_or_nan(correct.sum(axis=1), counts.sum(axis=(1, 2))),
    }
    if n_classes == 2:
        values |= {"sensitivity": recall[:, 1], "specificity": recall[:, 0]}
    return values


def _squared_error(y: NDArray, proba: NDArray) -> NDArray:
    """Error of the positive class, or the sum over classes where there are more than two."""
    error = (proba - np.eye(proba.shape[1])[y]) ** 2
    return error[:, 1] if proba.shape[1] == 2 else error.sum(axis=1)


def calibration_pairs(y: NDArray, proba: NDArray) -> tuple[NDArray, NDArray]:
    """Probability that is calibrated, and whether its event happened, for each patient.

    For two classes the event is the positive class. For more it is that the most probable class is
    the true one.
    """
    if proba.shape[1] == 2:
        return proba[:, 1], y == 1
    return proba.max(axis=1), proba.argmax(axis=1) == y


def calibration_bin(stated: NDArray) -> NDArray:
    """Number of the bin of each probability: 0 to ``N_BINS - 1``, of equal width.

    Examples
    --------
    >>> import numpy as np
    >>> calibration_bin(np.array([0.0, 0.15, 1.0]))
    array([0, 1, 9])
    """
    return np.clip((stated * N_BINS).astype(int), 0, N_BINS - 1)


def pooled_auroc(y: NDArray, proba: NDArray, weights: NDArray) -> NDArray:
    """AUROC as in :func:`patient_metrics`, alone."""
    blocks = [one_vs_rest(auroc, y, proba, block) for block in blocks_of(weights)]
    return np.concatenate(blocks)


def one_vs_rest(
    metric: RankMetric,
    y: NDArray,
    proba: NDArray,
    weights: NDArray,
    classes: Sequence[int] | None = None,
) -> NDArray:
    """`metric` of the positive class, or its mean over `classes` where there are more than two."""
    if proba.shape[1] == 2:
        return metric(y == 1, proba[:, 1], weights)
    classes = range(proba.shape[1]) if classes is None else classes
    return np.mean([metric(y == k, proba[:, k], weights) for k in classes], axis=0)


def auroc(positive: NDArray, score: NDArray, weights: NDArray) -> NDArray:
    """Area under the ROC curve for each row of `weights`; NaN where a class has no weight.

    Examples
    --------
    >>> import numpy as np
    >>> auroc(np.array([False, True, True]), np.array([0.2, 0.1, 0.7]), np.ones((1, 3)))
    array([0.5])
    """
    true, false = binary_curve(positive, score, weights)
    gained = np.diff(true, axis=1, prepend=0)
    before = false - np.diff(false, axis=1, prepend=0) / 2  # a tie counts half
    return 1 - divide_or_nan((gained * before).sum(axis=1), true[:, -1] * false[:, -1])


def average_precision(positive: NDArray, score: NDArray, weights: NDArray) -> NDArray:
    """Sum over thresholds of precision times gain in recall (no interpolation)."""
    true, false = binary_curve(positive, score, weights)
    precision = np.nan_to_num(divide_or_nan(true, true + false))
    gained = np.diff(true, axis=1, prepend=0)
    n_positive = np.where(false[:, -1] > 0, true[:, -1], 0)  # NaN where a class has no weight
    return divide_or_nan((precision * gained).sum(axis=1), n_positive)


class _BinaryCurve(NamedTuple):
    """Weight of the patients with a score of at least each threshold, highest threshold first.

    Attributes
    ----------
    true_positives, false_positives : ndarray of shape (n_weights, n_thresholds)
    """

    true_positives: NDArray
    false_positives: NDArray


def binary_curve(positive: NDArray, score: NDArray, weights: NDArray) -> _BinaryCurve:
    """Curve over the distinct scores; patients of equal score pass the threshold together."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    weights = weights[:, order]
    true = np.cumsum(weights * positive[order], axis=1)[:, last]
    return _BinaryCurve(true, np.cumsum(weights, axis=1)[:, last] - true)


def divide_or_nan(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Quotient, NaN where the denominator is zero."""
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def placements(positive: NDArray, score: NDArray) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC, by midranks in O(n log n).

    Returns
    -------
    of_positives : ndarray of shape (n_positives,)
        Share of the negatives that each positive outranks; ties count half.
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
    positives, negatives = np.sort(score[positive]), np.sort(score[~positive])
    outranked = _count_below(negatives, score[positive])
    outranking = len(positives) - _count_below(positives, score[~positive])
    return outranked / max(len(negatives), 1), outranking / max(len(positives), 1)


def _count_below(ranked: NDArray, score: NDArray) -> NDArray:
    """How many of the sorted values `ranked` are below each score; equal values count half."""
    return (np.searchsorted(ranked, score, "left") + np.searchsorted(ranked, score, "right")) / 2
