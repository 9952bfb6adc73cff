"""How small a difference in AUROC a number of patients can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from ..data.patients import patients_of


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
    >>> from sk_momkd.evaluation.power import detectable_difference
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
    >>> from sk_momkd.evaluation.power import hanley_mcneil_variance
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
