"""Uncertainty: DeLong's test, Holm's correction, bootstrap intervals, detectable differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, t

from ..data.patient import patients_of
from ..data.positive_class import positive_class
from ..messages import first_few
from .metrics import placements
from .small_samples import FEW_PATIENTS
from .study import bootstrap_generator


class DeLong(NamedTuple):
    """Result of :func:`delong_test`: two AUROCs of the same patients compared.

    Attributes
    ----------
    difference : float
        First AUROC minus second.
    standard_error : float
        Standard error of the difference.
    p_value : float
        Two-sided, by the normal distribution; with fewer than 20 patients in a class by Student's
        t. It is 1 if the AUROCs are equal and the difference has no variance, and NaN if they
        differ and it has none.
    correlation : float
        Correlation of the two AUROCs; NaN if one has no variance.

    Examples
    --------
    >>> from sk_momkd import delong_test
    >>> result = delong_test([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [1, 5, 3, 4, 2, 6])
    >>> round(result.p_value, 2)
    0.35
    """

    difference: float
    standard_error: float
    p_value: float
    correlation: float


def delong_test(
    y: ArrayLike, first: ArrayLike, second: ArrayLike, *, pos_label: Any = None
) -> DeLong:
    """Test whether two AUROCs of the same patients differ, by DeLong's method [1]_.

    Parameters
    ----------
    y : array-like of shape (n_patients,)
        Labels of two classes of any kind.
    first, second : array-like of shape (n_patients,) or (n_repeats, n_patients)
        Scores of the two methods. With repeats the test compares the mean AUROCs: their structural
        components are the means of those of the repeats.
    pos_label : label, optional
        The class that high scores stand for; by default the one that sorts last.

    Returns
    -------
    DeLong
        Named tuple ``difference, standard_error, p_value, correlation``.

    Raises
    ------
    ValueError
        If a label or a score is missing (NaN), there are not two classes, a class has fewer than
        two patients, or shapes differ.

    See Also
    --------
    holm : Correct the p-values of several tests.
    detectable_difference : Difference that a cohort can show.

    Notes
    -----
    The test takes the scores as fixed. Its p-value does not contain the randomness of training,
    such as seeds and folds. With fewer than 20 patients in a class the normal distribution finds
    differences that are not there; then the p-value is that of Student's t with as many degrees of
    freedom as the rarer class has patients, minus one.

    References
    ----------
    .. [1] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
       more correlated receiver operating characteristic curves", Biometrics 44, 1988.

    Examples
    --------
    >>> from sk_momkd import delong_test
    >>> y = [0, 0, 0, 1, 1, 1]
    >>> delong_test(y, [1, 2, 3, 4, 5, 6], [1, 5, 3, 4, 2, 6]).difference.round(3)
    np.float64(0.333)
    """
    labels = np.asarray(y)
    scores = [np.atleast_2d(np.asarray(s, dtype=float)) for s in (first, second)]
    if labels.ndim != 1 or any(s.shape[-1] != len(labels) or s.ndim != 2 for s in scores):
        raise ValueError(
            f"y has shape {labels.shape}, the scores {scores[0].shape} and {scores[1].shape}: "
            "expected one label and one score per patient (and repeat)."
        )
    positive = _is_positive(labels, pos_label)
    for name, values in zip(("first", "second"), scores, strict=True):
        _require_known(np.isnan(values).any(axis=0), f"scores of the {name} method")
    pairs = [[placements(positive, s) for s in each] for each in scores]
    above, below = (
        np.stack([np.mean([pair[side] for pair in each], axis=0) for each in pairs])
        for side in (0, 1)
    )
    return _test_components(above, below)


def _is_positive(labels: NDArray, pos_label: Any) -> NDArray:
    """Whether each patient is of the positive class."""
    _require_known(pd.isna(labels), "labels")
    classes = pd.unique(labels).tolist()
    if len(classes) > 2:
        raise ValueError(
            f"DeLong's test compares AUROCs of two classes, but y holds {len(classes)}: "
            f"{first_few(sorted(classes, key=str))}. Test one class against the rest, y == label."
        )
    counts = pd.Series(labels).value_counts().to_dict()
    if len(classes) < 2 or min(counts.values()) < 2:
        raise ValueError(f"DeLong's test needs at least two patients of each class, got {counts}.")
    return labels == positive_class(sorted(classes), pos_label)


def _require_known(missing: NDArray, what: str) -> None:
    if missing.any():
        raise ValueError(
            f"{missing.sum()} {what} are missing (NaN), the first at position "
            f"{int(missing.argmax())}. Leave these patients out of y and of both scores."
        )


def _test_components(above: NDArray, below: NDArray) -> DeLong:
    """Test the structural components of positives and of negatives, (2, n) each."""
    covariance = np.cov(above) / above.shape[1] + np.cov(below) / below.shape[1]
    gap = np.subtract(*above.mean(axis=1))
    spread = sum(np.var(c[0] - c[1], ddof=1) / c.shape[1] for c in (above, below))
    error = np.sqrt(spread)
    same = 1.0 if abs(gap) < 1e-12 else np.nan
    p = 2 * _tail(abs(gap) / error, [c.shape[1] for c in (above, below)]) if error > 1e-12 else same
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = covariance[0, 1] / scale if scale > 1e-24 else np.nan
    return DeLong(gap, error, float(p), float(correlation))


def _tail(statistic: float, counts: list[int]) -> float:
    if min(counts) < FEW_PATIENTS:
        return float(t.sf(statistic, min(counts) - 1))
    return float(norm.sf(statistic))


def holm(p_values: ArrayLike) -> NDArray:
    """Correct p-values for the number of tests, by Holm's step-down method [1]_.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)
        NaN stands for a test without a result; it is not counted.

    Returns
    -------
    ndarray of shape (n_tests,)
        Corrected p-values, NaN where `p_values` is NaN.

    References
    ----------
    .. [1] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
       of Statistics 6, 1979.

    Examples
    --------
    >>> from sk_momkd import holm
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


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap; every call draws the same samples.

    Attributes
    ----------
    n_draws : int
    confidence_level : float
    random_state : int

    Examples
    --------
    >>> print(Bootstrap(2000, 0.95, 0))
    95% of 2,000 draws, seed 0
    """

    n_draws: int
    confidence_level: float
    random_state: int

    def __post_init__(self) -> None:
        if self.n_draws < 1 or not 0 < self.confidence_level < 1:
            raise ValueError(
                "n_bootstrap must be at least 1 and confidence_level between 0 and 1, got "
                f"{self.n_draws!r} and {self.confidence_level!r}."
            )

    def patients(self, n_patients: int) -> NDArray:
        """Weights (n_draws, n_patients) when patients are drawn."""
        return self.sites(np.arange(n_patients))

    def sites(self, sites: NDArray) -> NDArray:
        """Weights (n_draws, n_patients) when whole sites are drawn."""
        return bootstrap_weights(sites, self.n_draws, bootstrap_generator(self.random_state))

    def within_folds(self, fold: NDArray) -> NDArray:
        """Weights (n_draws, n_patients) when patients are drawn within each fold."""
        random = bootstrap_generator(self.random_state)
        return stratified_bootstrap_weights(fold, self.n_draws, random)

    def interval(self, values: NDArray) -> tuple[float, float]:
        """Percentile interval of the values of the draws."""
        return percentile_interval(values, self.confidence_level)

    def __str__(self) -> str:
        return f"{self.confidence_level:.0%} of {self.n_draws:,} draws, seed {self.random_state}"


def bootstrap_weights(units: NDArray, n_draws: int, random: np.random.Generator) -> NDArray:
    """How often each patient occurs in bootstrap samples of units (patients or whole sites).

    Parameters
    ----------
    units : ndarray of shape (n_patients,)
        Patients with equal values are drawn together.
    n_draws : int
    random : numpy Generator

    Returns
    -------
    int ndarray of shape (n_draws, n_patients)

    Examples
    --------
    >>> import numpy as np
    >>> weights = bootstrap_weights(np.array(["A", "A", "B"]), 50, np.random.default_rng(0))
    >>> bool((weights[:, 0] == weights[:, 1]).all()), np.unique(weights[:, 0] + weights[:, 2])
    (True, array([2]))
    """
    _, of_patient = np.unique(units, return_inverse=True)
    n_units = of_patient.max() + 1
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_draws)[:, of_patient]


def stratified_bootstrap_weights(
    strata: NDArray, n_draws: int, random: np.random.Generator
) -> NDArray:
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
    weights = np.zeros((n_draws, len(strata)), dtype=int)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = bootstrap_weights(members, n_draws, random)
    return weights


def percentile_interval(values: NDArray, confidence_level: float) -> tuple[float, float]:
    """Percentile interval; draws without a value (a class was not drawn) are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class PowerNote:
    """Result of :func:`detectable_difference`; ``str`` gives it as a sentence.

    Attributes
    ----------
    difference : float
        Smallest difference in AUROC that is found with probability `power`; NaN if not even a
        difference up to an AUROC of 1 is.
    n_positive, n_negative : int
        Number of patients of each class.
    auroc : float
        Assumed AUROC of the poorer method.
    correlation : float
        Assumed correlation of the two AUROCs.
    power : float
        Probability with which the difference is found.
    alpha : float
        Level of the two-sided test.

    Examples
    --------
    >>> from sk_momkd import detectable_difference
    >>> detectable_difference([0] * 400 + [1] * 100).n_positive
    100
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
        Bags with patient ids: each patient is then counted once.
    auroc : float, default=0.75
        AUROC of the poorer method.
    correlation : float, default=0.5
        Correlation of the two AUROCs over samples of patients. `compare` measures it: column
        ``correlation``.
    power : float, default=0.8
        Probability with which the difference is to be found.
    alpha : float, default=0.05
        Level of the two-sided test.
    pos_label : label, optional
        Label of the positive class, by default the one that sorts last.

    Returns
    -------
    PowerNote

    Raises
    ------
    ValueError
        If there are not two classes, or a number is out of range.

    Notes
    -----
    The difference d solves ``d = (z_(1-alpha/2) + z_power) s`` with
    ``s^2 = V(A) + V(A + d) - 2 r sqrt(V(A) V(A + d))``, where V is the variance of Hanley and
    McNeil (exponential form) [1]_, A is `auroc` and r the assumed correlation. Folds, seeds and
    several tests make the true figure larger.

    References
    ----------
    .. [1] J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
       characteristic (ROC) curve", Radiology 143, 1982.

    Examples
    --------
    >>> from sk_momkd import detectable_difference
    >>> round(detectable_difference([0] * 400 + [1] * 100).difference, 3)
    0.079
    """
    for name, value, low in (("auroc", auroc, 0.5), ("correlation", correlation, -1.0)):
        if not low <= value < 1:
            raise ValueError(f"{name} must be at least {low:g} and below 1, got {value!r}.")
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power must be between 0 and 1, got {alpha!r}, {power!r}.")
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
    if len(names) != 2:
        raise ValueError(f"Expected two classes, got {len(names)}: {first_few(names)}.")
    counts = np.bincount(labels, minlength=2)
    positive = names.index(positive_class(names, pos_label))
    return int(counts[positive]), int(counts[1 - positive])
