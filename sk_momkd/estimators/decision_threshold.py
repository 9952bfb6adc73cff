"""A threshold on the probability of the positive class, with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecisionThreshold:
    """Threshold from which probability on `predict` takes the positive class.

    :meth:`Evaluation.threshold` chooses it on out-of-fold predictions; the parameter
    `decision_threshold` of every classifier takes it and keeps it, in clones, pickles and searches.

    Parameters
    ----------
    value : float
        A bag is positive if its probability is at least this.
    prior : "training", "sampler", dict or array-like, optional
        The `prior` of the classifier whose probabilities `value` refers to. At another prior, a
        classifier moves the threshold with the probabilities, so that its decisions, and with
        them sensitivity and specificity, stay the same. The probabilities of a patient's slides
        are averaged at the prior given here. None is the prior at `fit`. An array is kept as a
        tuple, and a Series as one or, with labels as index, as a dict.
    pos_label : label, optional
        The positive class that it is for.
    low, high : float, optional
        Interval of `value`.
    sensitivity, sensitivity_low, sensitivity_high : float, optional
        Share of the positive patients with at least this probability, and its interval.
    specificity, specificity_low, specificity_high : float, optional
        Share of the other patients with less, and its interval.
    sensitivity_cross_fitted, specificity_cross_fitted : float, optional
        The same, where the threshold for the patients of a fold is chosen on those of the others.
    n_positive, n_negative : int
        Patients on whom it rests.
    criterion : str
        How it was chosen.
    source : str
        On which predictions.
    confidence_level : float

    See Also
    --------
    Evaluation.threshold : Chooses one.

    Examples
    --------
    >>> from sk_momkd import ABMILClassifier, DecisionThreshold
    >>> clf = ABMILClassifier(decision_threshold=DecisionThreshold(0.3, prior="training"))
    >>> clf.get_params()["decision_threshold"].value
    0.3
    """

    value: float
    prior: Any = None
    pos_label: Any = None
    low: float | None = None
    high: float | None = None
    sensitivity: float | None = None
    sensitivity_low: float | None = None
    sensitivity_high: float | None = None
    specificity: float | None = None
    specificity_low: float | None = None
    specificity_high: float | None = None
    sensitivity_cross_fitted: float | None = None
    specificity_cross_fitted: float | None = None
    n_positive: int = 0
    n_negative: int = 0
    criterion: str = ""
    source: str = ""
    confidence_level: float = 0.95

    def __post_init__(self) -> None:
        if not isinstance(self.value, Real) or not 0 <= self.value <= 1:
            raise ValueError(f"A threshold is a probability, between 0 and 1, got {self.value!r}.")
        object.__setattr__(self, "prior", _plain_prior(self.prior))

    def __hash__(self) -> int:
        return hash((self.value, self.pos_label, self.criterion, self.source))

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        about = f", {self.criterion}" if self.criterion else ""
        return f"DecisionThreshold({self.value:.4g}, prior={_text(self.prior)}{about})"

    def __str__(self) -> str:
        interval = _interval(self.low, self.high)
        whose = "" if self.pos_label is None else f" of {self.pos_label!r}"
        lines = [f"Threshold {self.value:.3g}{interval} on the probability{whose}"]
        if self.criterion:
            lines[0] += (
                f", chosen by {self.criterion} on {self.n_positive} positive and "
                f"{self.n_negative} other patients ({self.source})"
            )
        for name in ("sensitivity", "specificity"):
            value = getattr(self, name)
            if value is not None:
                ends = _interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"))
                fair = getattr(self, f"{name}_cross_fitted")
                fair = "" if fair is None else f"; {fair:.3f} if chosen on the other folds"
                lines.append(f"{name} {value:.3f}{ends}{fair}")
        if self.prior is not None:
            lines.append(f"for probabilities at prior={_text(self.prior)}")
        return "\n".join(lines)


def _plain_prior(prior: Any) -> Any:
    """The prior without arrays, whose comparison with `==` is no truth value."""
    if isinstance(prior, pd.Series) and not isinstance(prior.index, pd.RangeIndex):
        prior = prior.to_dict()
    if isinstance(prior, Mapping):
        return dict(zip(prior, np.asarray([*prior.values()]).tolist(), strict=True))
    if prior is None or isinstance(prior, str):
        return prior
    values = np.asarray(prior).tolist()
    return tuple(values) if isinstance(values, list) else values


def _text(prior: Any) -> str:
    if isinstance(prior, Mapping):
        return "{" + ", ".join(f"{label!r}: {_text(share)}" for label, share in prior.items()) + "}"
    return f"{prior:.4g}" if isinstance(prior, Real) else repr(prior)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


class MovedThreshold(NamedTuple):
    """A threshold at the current prior, with what it was at the prior of its choice.

    The odds of all probabilities are multiplied by `odds` from that prior to this one.
    """

    value: float
    chosen_at: float
    odds: float


def at_prior(value: float, before: NDArray, after: NDArray, positive: int) -> MovedThreshold:
    """The threshold `value` at the class shares `before`, moved to the shares `after`."""
    moved = moved_threshold(value, before, after, positive)
    weight = after / before
    return MovedThreshold(moved, value, float(weight[positive] / weight[1 - positive]))


def moved_threshold(value: float, before: NDArray, after: NDArray, positive: int) -> float:
    """Threshold at the class shares `after` that decides as `value` does at `before`.

    The odds of a probability change by the ratio of the classes' shares, and so do those of the
    threshold.

    Examples
    --------
    >>> import numpy as np
    >>> round(moved_threshold(0.5, np.array([0.5, 0.5]), np.array([0.9, 0.1]), 1), 3)
    0.1
    """
    if value in (0, 1) or np.array_equal(before, after):
        return value
    weight = after / before
    reached, missed = value * weight[positive], (1 - value) * weight[1 - positive]
    return float(reached / (reached + missed))


def check_threshold(threshold: Any, classes: NDArray, pos_label: Any) -> None:
    """Check that a threshold fits the classes.

    Raises
    ------
    ValueError
        If there are more than two classes, or it is for another positive class.
    """
    names = classes.tolist()
    if len(names) != 2:
        raise ValueError(
            f"decision_threshold={threshold!r} is for two classes, but there are {len(names)}: "
            f"{', '.join(map(repr, names))}. Leave it out, or join classes until two are left."
        )
    chosen_for = getattr(threshold, "pos_label", None)
    if chosen_for is not None and chosen_for != pos_label:
        raise ValueError(
            f"decision_threshold={threshold!r} was chosen for the positive class {chosen_for!r}, "
            f"but that of the classifier is {pos_label!r}. Set pos_label={chosen_for!r}, or choose "
            "a threshold for this class."
        )
