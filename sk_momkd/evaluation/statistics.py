"""Uncertainty: DeLong and Holm, bootstrap draws and intervals, detectable differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from ..data.patient import patients_of
from .metrics import placements


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
    >>> from sk_momkd.evaluation.statistics import delong_test
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
    >>> from sk_momkd.evaluation.statistics import holm
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


def draw_units(units: NDArray, n_draws: int, random: np.random.Generator) -> NDArray:
    """How often each patient occurs when units (patients, or whole sites) are drawn.

    Parameters
    ----------
    units : ndarray of shape (n_patients,)
        Patients of equal value are drawn together.
    n_draws : int
    random : numpy Generator

    Returns
    -------
    int ndarray of shape (n_draws, n_patients)

    Examples
    --------
    >>> import numpy as np
    >>> draw = draw_units(np.array(["A", "A", "B"]), 50, np.random.default_rng(0))
    >>> bool((draw[:, 0] == draw[:, 1]).all()), np.unique(draw[:, 0] + draw[:, 2])
    (True, array([2]))
    """
    _, of_patient = np.unique(units, return_inverse=True)
    n_units = of_patient.max() + 1
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_draws)[:, of_patient]


def draw_within(strata: NDArray, n_draws: int, random: np.random.Generator) -> NDArray:
    """How often each patient occurs when patients are drawn within strata of fixed size.

    Parameters
    ----------
    strata : ndarray of shape (n_patients,)
    n_draws : int
    random : numpy Generator

    Returns
    -------
    int ndarray of shape (n_draws, n_patients)
    """
    draws = np.zeros((n_draws, len(strata)), dtype=int)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        draws[:, members] = draw_units(members, n_draws, random)
    return draws


def interval(values: NDArray, confidence_level: float) -> tuple[float, float]:
    """Percentile interval; draws without a value (a class was not drawn) are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class PowerNote:
    """The answer of :func:`detectable_difference`.

    Attributes
    ----------
    difference : float
        NaN where even an AUROC of 1 would not be told apart.
    n_positive, n_negative : int
        Patients.
    auroc, correlation, power, alpha : float
        What was assumed.
    """

    difference: float
    n_positive: int
    n_negative: int
    auroc: float
    correlation: float
    power: float
    alpha: float

    def __str__(self) -> str:
        patients = f"{self.n_positive} positive and {self.n_negative} negative patients"
        if np.isnan(self.difference):
            return f"{patients} cannot show any difference from an AUROC of {self.auroc:.2f}."
        return (
            f"{patients} show a difference of {self.difference:.3f} from an AUROC of "
            f"{self.auroc:.2f} with probability {self.power:.0%} (two-sided test at "
            f"{self.alpha:g}, assumed correlation {self.correlation:.2f} of the two AUROCs)."
        )


def detectable_difference(
    y: Any,
    bags: Any = None,
    *,
    auroc: float = 0.75,
    correlation: float = 0.5,
    power: float = 0.8,
    alpha: float = 0.05,
    pos_label: Any = None,
) -> PowerNote:
    """Smallest difference between two paired AUROCs that is found with probability `power`.

    Parameters
    ----------
    y : array-like of shape (n_patients,), or (n_bags,) where `bags` are given
        Labels of two classes.
    bags : BagSequence, optional
        Tell the patients, who are counted once.
    auroc : float, default=0.75
        Of the poorer method.
    correlation : float, default=0.5
        Of the two AUROCs over samples of patients. `compare` measures it: column ``correlation``.
    power : float, default=0.8
    alpha : float, default=0.05
        Of the two-sided test.
    pos_label : label, optional
        By default the class that sorts last.

    Returns
    -------
    PowerNote

    Raises
    ------
    ValueError
        If there are not two classes, or a number is out of range.

    Notes
    -----
    Solves d = z_(1-alpha/2) s + z_power s with s^2 = V(A) + V(A + d) - 2 r sqrt(V(A) V(A + d)),
    where V is the variance of Hanley and McNeil (binormal approximation, exponential form) [1]_
    and r the assumed correlation. Folds, seeds and several tests make the true figure larger.

    References
    ----------
    .. [1] J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
       characteristic (ROC) curve", Radiology 143, 1982.

    Examples
    --------
    >>> from sk_momkd.evaluation.statistics import detectable_difference
    >>> round(detectable_difference([0] * 400 + [1] * 100).difference, 3)
    0.079
    """
    for name, value, low in (("auroc", auroc, 0.5), ("correlation", correlation, -1.0)):
        if not low <= value < 1:
            raise ValueError(f"{name} must be at least {low:g} and below 1, got {value!r}.")
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power must lie between 0 and 1, got {alpha!r}, {power!r}.")
    n_positive, n_negative = _patients_per_class(y, bags, pos_label)
    reach = norm.isf(alpha / 2) + norm.ppf(power)

    def shortfall(difference: float) -> float:
        one = hanley_mcneil_variance(auroc, n_positive, n_negative)
        other = hanley_mcneil_variance(auroc + difference, n_positive, n_negative)
        spread = one + other - 2 * correlation * np.sqrt(one * other)
        return difference - reach * float(np.sqrt(spread))

    top = 1 - auroc
    found = brentq(shortfall, 0, top) if shortfall(top) > 0 else np.nan
    return PowerNote(float(found), n_positive, n_negative, auroc, correlation, power, alpha)


def hanley_mcneil_variance(auroc: float, n_positive: int, n_negative: int) -> float:
    """Variance of an AUROC by Hanley and McNeil (1982).

    Examples
    --------
    >>> from sk_momkd.evaluation.statistics import hanley_mcneil_variance
    >>> round(hanley_mcneil_variance(0.75, 100, 400) ** 0.5, 3)
    0.03
    """
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    square = auroc**2
    top = auroc - square + (n_positive - 1) * (q1 - square) + (n_negative - 1) * (q2 - square)
    return max(top, 0.0) / (n_positive * n_negative)


def _patients_per_class(y: Any, bags: Any, pos_label: Any) -> tuple[int, int]:
    if bags is None:
        classes, labels = np.unique(np.asarray(y), return_inverse=True)
        names = classes.tolist()
    else:
        patients = patients_of(bags, y, None)
        names, labels = patients.classes, patients.labels
    if len(names) != 2 or (pos_label is not None and pos_label not in names):
        raise ValueError(f"Expected two classes (and pos_label among them), got {names}.")
    counts = np.bincount(labels, minlength=2)
    positive = 1 if pos_label is None else names.index(pos_label)
    return int(counts[positive]), int(counts[1 - positive])
