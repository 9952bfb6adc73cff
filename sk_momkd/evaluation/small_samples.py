"""Intervals for classes of few patients, for which the bootstrap is too narrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import dist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, norm, t

FEW_PATIENTS = 20  # per class; with fewer, intervals and tests are those of this module

Interval = tuple[float, float]


def is_small(counts: NDArray) -> bool:
    """Whether one of the classes that occur has few patients."""
    return bool(counts[counts > 0].min(initial=FEW_PATIENTS) < FEW_PATIENTS)


def small_sample_note(classes: Sequence[Any], y: NDArray) -> str:
    """What is different about the intervals of a study with few patients; empty otherwise.

    Parameters
    ----------
    classes : sequence of labels
    y : int ndarray of shape (n_patients,)
        Class numbers.
    """
    counts = np.bincount(y, minlength=len(classes))
    if not is_small(counts):
        return ""
    few = [f"{n} of {c!r}" for c, n in zip(classes, counts, strict=True) if 0 < n < FEW_PATIENTS]
    start = f"Few patients ({', '.join(few)}; fewer than {FEW_PATIENTS} are few)"
    if len(classes) != 2:
        return f"{start}: the intervals of the bootstrap are too narrow."
    tests = (
        f"Differences are tested by Student's t with {counts.min() - 1} degrees of freedom."
        if counts.min() > 1
        else "Differences are not tested, because a class has a single patient."
    )
    return (
        f"{start}: the bootstrap would be too narrow. Intervals of AUROCs are score intervals "
        "(Newcombe), those of sensitivity, specificity and accuracy are exact (Clopper-Pearson), "
        "and those of AUPRC and F1 are exact ones of a proportion of the rarer class. "
        f"{tests} Brier score, calibration error and intervals over sites keep the bootstrap."
    )


class ClassSizes(NamedTuple):
    """Number of patients of each of two classes."""

    positive: int
    negative: int

    @classmethod
    def of(cls, y: NDArray) -> ClassSizes:
        """Count class numbers 1 and 0."""
        return cls(int((y == 1).sum()), int((y == 0).sum()))


def auroc_interval(auroc: float, folds: Sequence[ClassSizes], confidence_level: float) -> Interval:
    """Score interval of an AUROC, or of the mean over folds, by Newcombe's method 5 [1]_.

    It holds the AUROCs from which `auroc` is at most z standard errors away, where the standard
    error is that of the candidate. Unlike the bootstrap's it is not empty for an AUROC of 1.

    Parameters
    ----------
    auroc : float
    folds : sequence of ClassSizes
        One for an AUROC of all patients.
    confidence_level : float

    References
    ----------
    .. [1] R. G. Newcombe, "Confidence intervals for an effect size measure based on the
       Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 2006.

    Examples
    --------
    >>> low, high = auroc_interval(1.0, [ClassSizes(4, 4)], 0.95)
    >>> round(low, 2), high
    (0.58, 1.0)
    """
    if not np.isfinite(auroc) or not folds:
        return np.nan, np.nan
    z = norm.isf((1 - confidence_level) / 2)

    def excess(candidate: float) -> float:
        variances = [_newcombe_variance(candidate, *sizes) for sizes in folds]
        return abs(auroc - candidate) - z * float(np.sqrt(np.sum(variances))) / len(folds)

    tiny = 1e-9  # at 0 and at 1 the variance is 0
    low = brentq(excess, 0, auroc - tiny) if auroc > tiny else 0.0
    high = brentq(excess, auroc + tiny, 1) if auroc < 1 - tiny else 1.0
    return float(low), float(high)


def _newcombe_variance(auroc: float, n_positive: int, n_negative: int) -> float:
    extra = (n_positive + n_negative) / 2 - 1
    spread = 1 + extra * ((1 - auroc) / (2 - auroc) + auroc / (1 + auroc))
    return auroc * (1 - auroc) * spread / (n_positive * n_negative)


def proportion_interval(share: float, n: float, confidence_level: float) -> Interval:
    """Exact interval of a proportion of `n` patients (Clopper and Pearson).

    Examples
    --------
    >>> low, high = proportion_interval(1.0, 4, 0.95)
    >>> round(low, 2), high
    (0.4, 1.0)
    """
    if not np.isfinite(share) or n <= 0:
        return np.nan, np.nan
    tail, hits = (1 - confidence_level) / 2, share * n
    low = beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = beta.isf(tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def small_sample_intervals(
    values: Mapping[str, float],
    y: NDArray,
    folds: Sequence[NDArray],
    confidence_level: float,
) -> dict[str, Interval]:
    """Intervals that replace those of the bootstrap; none unless a class has few patients.

    Parameters
    ----------
    values : dict of str to float
        Metrics by the names of the result tables.
    y : int ndarray of shape (n_patients,)
        Numbers of two classes.
    folds : sequence of int ndarray
        The same by test fold.
    confidence_level : float
    """
    sizes = ClassSizes.of(y)
    if not all(sizes) or not is_small(np.array(sizes)):
        return {}
    both = [s for s in map(ClassSizes.of, folds) if all(s)]
    found: dict[str, Interval] = {}
    for name, value in values.items():
        metric, known = name.removesuffix("_tuned"), confidence_level
        if metric in ("auroc", "fold_auroc"):
            found[name] = auroc_interval(value, [sizes] if metric == "auroc" else both, known)
        elif metric in _N_OF_PROPORTION:
            found[name] = proportion_interval(value, _N_OF_PROPORTION[metric](sizes), known)
        elif metric == "balanced_accuracy":
            suffix = name.removeprefix(metric)
            parts = [values[f"{part}{suffix}"] for part in ("sensitivity", "specificity")]
            found[name] = _interval_of_mean(parts, sizes, known)
    return found


_N_OF_PROPORTION: dict[str, Callable[[ClassSizes], int]] = {
    "sensitivity": lambda sizes: sizes.positive,
    "specificity": lambda sizes: sizes.negative,
    "accuracy": sum,
    "auprc": min,
    "f1_macro": min,
}


def _interval_of_mean(shares: Sequence[float], sizes: Sequence[int], level: float) -> Interval:
    """Interval of the mean of two independent proportions, from their exact intervals (MOVER)."""
    each = [proportion_interval(p, n, level) for p, n in zip(shares, sizes, strict=True)]
    lows, highs = zip(*each, strict=True)
    mean = float(np.mean(shares))
    return mean - dist(shares, lows) / 2, mean + dist(highs, shares) / 2


def student_quantile(counts: Sequence[int], confidence_level: float) -> float:
    """Quantile of Student's t for a difference of AUROCs, with the rarer class's freedom.

    Satterthwaite's degrees of freedom find a difference of two methods without one in 8 % of
    cohorts of 3 + 57 patients; one less than the number of the rarer class keeps 5 %.
    """
    return float(t.isf((1 - confidence_level) / 2, max(min(counts) - 1, 1)))
