"""Thresholds chosen on out-of-fold predictions of patients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..estimators.decision_threshold import DecisionThreshold
from ..messages import warn
from .metrics import binary_curve, blocks_of, divide_or_nan
from .small_samples import FEW_PATIENTS, proportion_interval
from .statistics import Bootstrap

Criterion = str | tuple[str, float]
VALIDATION_PART = "inner validation part"  # source of a threshold that `predict` does not use


class Counts(NamedTuple):
    """Weight of patients on each side of each candidate, of shape (n_weights, n_candidates)."""

    true: NDArray  # positive patients that are called positive
    false: NDArray  # others that are called positive
    positives: NDArray  # (n_weights, 1)
    negatives: NDArray


def youden(c: Counts) -> NDArray:
    """Sensitivity + specificity - 1."""
    return divide_or_nan(c.true, c.positives) - divide_or_nan(c.false, c.negatives)


def f1(c: Counts) -> NDArray:
    """F1 of the positive class."""
    return divide_or_nan(2 * c.true, c.true + c.false + c.positives)


_SCORES: dict[str, Callable[[Counts], NDArray]] = {"youden": youden, "f1": f1}
_BOUNDS = ("sensitivity", "specificity")
_EXACT = 1e-9  # a share that is reached but for rounding is reached


def check_criterion(criterion: Any) -> str:
    """The criterion in words.

    Raises
    ------
    ValueError
        If it is unknown, or its bound is no share.
    """
    if isinstance(criterion, str) and criterion in _SCORES:
        return criterion
    if isinstance(criterion, tuple) and len(criterion) == 2 and criterion[0] in _BOUNDS:
        name, bound = criterion
        if 0 < bound <= 1:
            return f"{name} of at least {bound:g}"
    raise ValueError(
        f"criterion={criterion!r} must be one of {', '.join(map(repr, _SCORES))}, or a pair such "
        "as ('sensitivity', 0.9) or ('specificity', 0.9) with a share above 0 and up to 1."
    )


def best_cuts(positive: NDArray, score: NDArray, weights: NDArray, criterion: Any) -> NDArray:
    """Best threshold (score >= threshold is positive) for each row of `weights`.

    Candidates lie halfway between neighbouring scores. Of several best ones, the lowest is taken;
    for a bound on sensitivity the highest that keeps it, for one on specificity the lowest. Where
    none keeps it, as a negative has the probability 1, it is the highest of all.

    Returns
    -------
    ndarray of shape (n_weights,)
        NaN where a class has no weight.

    Examples
    --------
    >>> import numpy as np
    >>> positive, score = np.array([False, True, False, True]), np.array([0.1, 0.3, 0.4, 0.9])
    >>> best_cuts(positive, score, np.ones((1, 4)), "f1").round(2).tolist()
    [0.2]
    >>> best_cuts(positive, score, np.ones((1, 4)), ("specificity", 1.0)).round(2).tolist()
    [0.65]
    """
    cuts = _halfway(np.unique(score)[::-1])
    start = int(score.max() >= 1)  # no threshold up to 1 leaves out a probability of 1
    cuts, found = cuts[start:], []
    for block in blocks_of(weights):
        counts = _counts(positive, score, block, start)
        best = cuts[_best_candidate(counts, criterion)]
        empty = (counts.positives * counts.negatives)[:, 0] == 0
        found.append(np.where(empty, np.nan, best))
    return np.concatenate(found)


def _halfway(scores: NDArray) -> NDArray:
    """Cuts above the highest score and below each, highest first; scores are descending."""
    edges = np.concatenate([[1.0], scores, [0.0]])
    middle = (edges[:-1] + edges[1:]) / 2
    return np.where(middle > edges[1:], middle, edges[:-1])  # neighbours without a number between


def _counts(positive: NDArray, score: NDArray, weights: NDArray, start: int) -> Counts:
    curve = binary_curve(positive, score, weights)
    none = np.zeros((len(weights), 1))
    true, false = (np.hstack([none, part]) for part in curve)
    return Counts(true[:, start:], false[:, start:], true[:, -1:], false[:, -1:])


def _best_candidate(counts: Counts, criterion: Any) -> NDArray:
    if isinstance(criterion, str):
        score = np.nan_to_num(_SCORES[criterion](counts), nan=-1)
        score = np.round(score, 12)  # ties that differ by rounding
        return score.shape[1] - 1 - score[:, ::-1].argmax(axis=1)
    name, bound = criterion
    if name == "sensitivity":
        kept = counts.true >= (bound - _EXACT) * counts.positives
        return kept.argmax(axis=1)
    kept = counts.negatives - counts.false >= (bound - _EXACT) * counts.negatives
    return np.where(kept.any(axis=1), kept.shape[1] - 1 - kept[:, ::-1].argmax(axis=1), 0)


def choose_threshold(
    repeats: Sequence[Any],
    classes: Sequence[Any],
    criterion: Any,
    bootstrap: Bootstrap,
    *,
    by: str = "pooled",
    prior: Any = None,
    name: str = "",
) -> DecisionThreshold:
    """Choose a threshold on out-of-fold predictions; see :meth:`Evaluation.threshold`."""
    described = check_criterion(criterion)
    if by not in ("pooled", "fold"):
        raise ValueError(f"by must be 'pooled' or 'fold', got {by!r}.")
    if len(classes) != 2:
        raise ValueError(f"A threshold is for two classes, but there are {len(classes)}.")
    _check_patients(repeats, classes, criterion)
    n = 1 + max(int(part.patients.max()) for part in repeats)
    value = float(_chosen(repeats, np.ones((1, n)), criterion, by)[0])
    low, high = bootstrap.interval(_chosen(repeats, bootstrap.patients(n), criterion, by))
    y = labels_of_patients(repeats)
    n_positive, n_negative = int((y == 1).sum()), int((y == 0).sum())
    _warn_if_few(n_positive, n_negative, classes)
    level = bootstrap.confidence_level
    rates: dict[str, Any] = _rates(repeats, value, level) | _cross_fitted(repeats, criterion)
    return DecisionThreshold(
        value,
        prior=prior,
        pos_label=classes[1],
        low=low,
        high=high,
        n_positive=n_positive,
        n_negative=n_negative,
        criterion=described,
        source=_source(repeats, by, name),
        confidence_level=level,
        **rates,
    )


def labels_of_patients(repeats: Sequence[Any]) -> NDArray:
    """Class number of each patient of any repeat: a fold may have failed in some of them alone."""
    patients = np.concatenate([part.patients for part in repeats])
    _, first = np.unique(patients, return_index=True)
    return np.concatenate([part.y for part in repeats])[first]


def count_folds(repeats: Sequence[Any]) -> int:
    """Number of folds of a repeat, also where one of them failed in some repeats."""
    return len({fold for part in repeats for fold in part.fold.tolist()})


def _check_patients(repeats: Sequence[Any], classes: Sequence[Any], criterion: Any) -> None:
    """Raise if a repeat has one class only, or no threshold reaches the specificity."""
    for number, part in enumerate(repeats):
        n_of = np.bincount(part.y, minlength=2)
        if not n_of.all():
            raise ValueError(
                f"A threshold needs patients of both classes, but of repeat {number} there are "
                f"predictions of {n_of[0]} of {classes[0]!r} and {n_of[1]} of {classes[1]!r}. The "
                "table `failed` names folds that failed."
            )
        reachable = float((part.proba[part.y == 0, 1] < 1).mean())
        if criterion[0] == "specificity" and reachable < criterion[1] - _EXACT:
            raise ValueError(
                f"No threshold has a {check_criterion(criterion)}: of repeat {number}, "
                f"{1 - reachable:.3g} of the patients of {classes[0]!r} have the probability 1 of "
                f"{classes[1]!r}. The highest specificity that can be reached is {reachable:.3g}."
            )


def _chosen(repeats: Sequence[Any], weights: NDArray, criterion: Any, by: str) -> NDArray:
    """Threshold for each row of `weights`: mean over repeats, with "fold" the median over folds."""
    of_repeats = []
    for part in repeats:
        if by == "pooled":
            of_repeats.append(_cuts(part, weights, criterion))
            continue
        both = [fold for fold in part.of_folds() if 0 < (fold.y == 1).sum() < len(fold.y)]
        each = np.array([_cuts(fold, weights, criterion) for fold in both])
        if not len(each):
            raise ValueError("No fold has patients of both classes. Use by='pooled'.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")
            of_repeats.append(np.nanmedian(each, axis=0))
    return np.mean(of_repeats, axis=0)


def _cuts(part: Any, weights: NDArray, criterion: Any) -> NDArray:
    return best_cuts(part.y == 1, part.proba[:, 1], weights[:, part.patients], criterion)


def _rates(repeats: Sequence[Any], value: float, level: float) -> dict[str, float]:
    """Sensitivity and specificity at the threshold, mean over repeats, with exact intervals."""
    found: dict[str, float] = {}
    y = labels_of_patients(repeats)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        shares = [_share(part, part.proba[:, 1] >= value, label) for part in repeats]
        share, n = float(np.mean(shares)), int((y == label).sum())
        low, high = proportion_interval(share, n, level)
        found |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return found


def _share(part: Any, called: NDArray, label: int) -> float:
    return float((called[part.y == label] == bool(label)).mean())


def _cross_fitted(repeats: Sequence[Any], criterion: Any) -> dict[str, float]:
    """The rates where the threshold of each fold is chosen on the other folds."""
    rates: dict[str, list[float]] = {"sensitivity": [], "specificity": []}
    for part in repeats:
        called = np.zeros(len(part.y), dtype=bool)
        for fold in np.unique(part.fold):
            others = part.take(part.fold != fold)
            if 0 < (others.y == 1).sum() < len(others.y):
                ones = np.ones((1, 1 + int(part.patients.max())))
                cut = _cuts(others, ones, criterion)[0]
                here = part.fold == fold
                called[here] = part.proba[here, 1] >= cut
            else:
                return {}
        rates["sensitivity"].append(_share(part, called, 1))
        rates["specificity"].append(_share(part, called, 0))
    return {f"{name}_cross_fitted": float(np.mean(values)) for name, values in rates.items()}


def _source(repeats: Sequence[Any], by: str, name: str) -> str:
    n_folds = count_folds(repeats)
    more = f" x {len(repeats)} repeats" if len(repeats) > 1 else ""
    how = "pooled" if by == "pooled" else "median of the folds"
    return f"out-of-fold predictions of {name}, {n_folds} folds{more}, {how}"


def _warn_if_few(n_positive: int, n_negative: int, classes: Sequence[Any]) -> None:
    if min(n_negative, n_positive) < FEW_PATIENTS:
        warn(
            f"The threshold rests on {n_positive} patients of {classes[1]!r} and {n_negative} of "
            f"{classes[0]!r}; fewer than {FEW_PATIENTS} of a class are few. Its interval says how "
            "much it would change with other patients.",
            UserWarning,
        )


def threshold_note(table: pd.DataFrame) -> str:
    """At which thresholds `predict` of the models decides; empty where it has none.

    Parameters
    ----------
    table : DataFrame
        With ``threshold`` and ``threshold_source`` of each model.
    """
    own = table[table["threshold_source"].notna() & (table["threshold_source"] != VALIDATION_PART)]
    if not len(own):
        return ""
    low, high = own["threshold"].min(), own["threshold"].max()
    span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    sources = ", ".join(pd.unique(own["threshold_source"]))
    return (
        f"Accuracies, F1, sensitivity and specificity are at the threshold {span} of predict "
        f"({sources}), and so are the rows _tuned."
    )


def source_of(threshold: float, source: str) -> str | None:
    """Where the threshold of a model comes from; None without one."""
    return source or (None if np.isnan(threshold) else VALIDATION_PART)
