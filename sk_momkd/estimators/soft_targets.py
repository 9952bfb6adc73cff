"""Soft labels for any scikit-learn classifier: each sample is copied per class, with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import has_fit_parameter

_SHIFTS, _CLOSE = 200, 1e-9
_SPLITTING = {  # parameters by which classifiers split their training data, and the value without
    "early_stopping": False,
    "n_iter_no_change": None,
    "probability": False,
    "oob_score": False,
}


def at_class_shares(soft: NDArray, hard: NDArray, weights: NDArray | None = None) -> NDArray:
    """Soft labels whose mean is that of the hard labels: their logits are shifted by class.

    A teacher that was trained with balanced classes would otherwise move the probabilities of the
    student to balanced classes.

    Parameters
    ----------
    soft, hard : ndarray of shape (n_samples, n_classes)
        Rows sum to 1; every class has a hard label.
    weights : ndarray of shape (n_samples,), optional
        With which samples count in the means, such as how often each is drawn.

    Returns
    -------
    float64 ndarray of shape (n_samples, n_classes)
    """
    shares = np.average(hard, axis=0, weights=weights)
    values = np.clip(soft, np.finfo(np.float64).tiny, None).astype(np.float64)
    for _ in range(_SHIFTS):
        values /= values.sum(axis=1, keepdims=True)
        ratio = shares / np.average(values, axis=0, weights=weights)
        if np.abs(ratio - 1).max() < _CLOSE:
            break
        values *= ratio
    return values / values.sum(axis=1, keepdims=True)


def mixed_targets(hard: NDArray, soft: NDArray, paired: NDArray, weight: float) -> NDArray:
    """``(1 - weight) hard + weight soft`` for the paired samples, hard labels for the others.

    Parameters
    ----------
    hard : ndarray of shape (n_samples, n_classes)
    soft : ndarray of shape (n_paired, n_classes)
    paired : bool ndarray of shape (n_samples,)
    weight : float

    Returns
    -------
    float64 ndarray of shape (n_samples, n_classes)
    """
    targets = hard.astype(np.float64)
    targets[paired] += weight * (soft - targets[paired])
    return targets


def weighted_copies(targets: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Sample, class number and weight of each copy; copies of weight 0 are left out.

    Cross-entropy on the copies is cross-entropy with the targets.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_copies(np.array([[1.0, 0.0], [0.25, 0.75]]))
    (array([0, 1, 1]), array([0, 0, 1]), array([1.  , 0.25, 0.75]))
    """
    samples, classes = np.nonzero(targets > 0)
    return samples, classes, targets[samples, classes]


def require_weights(estimator: Any) -> None:
    """Raise unless the last step of `estimator` can be fitted on weighted copies.

    Raises
    ------
    TypeError
        If it takes no ``sample_weight``; if it splits its training data, which would put copies of
        a sample on both sides; or if it has class weights that would count copies.
    """
    last = last_step(estimator)
    if not has_fit_parameter(last, "sample_weight"):
        raise TypeError(
            f"{type(last).__name__}.fit takes no sample_weight, so it cannot be fitted on soft "
            "labels. Use a classifier that does, such as LogisticRegression, or omics=None."
        )
    inside = [part for part in last.get_params().values() if isinstance(part, BaseEstimator)]
    for part in (last, *inside):
        _require_no_split(part)
        _require_known_class_weight(part, alone=part is last)


def _require_no_split(part: Any) -> None:
    name = type(part).__name__
    params = part.get_params(deep=False)
    if "cv" in params:
        cause, remedy = name, "Put it around PrivilegedClassifier"
    elif found := [key for key, off in _SPLITTING.items() if _is_on(params, key, off)]:
        key, off = found[0], _SPLITTING[found[0]]
        cause, remedy = f"{name} with {key}={params[key]!r}", f"Set {key}={off}"
    else:
        return
    raise TypeError(
        f"{cause} splits its training data, where each sample has a weighted copy per class: "
        f"copies of one sample would be on both sides. {remedy}, or use omics=None."
    )


def _is_on(params: dict[str, Any], key: str, off: Any) -> bool:
    """Whether a parameter lets a classifier split its data; `fit_last` sees to "auto"."""
    if key == "n_iter_no_change" and "early_stopping" in params:
        return False  # it states how early
    value = params.get(key, off)
    return value is not None and value != off and not isinstance(value, str)


def _require_known_class_weight(part: Any, *, alone: bool) -> None:
    """Raise if class weights would be computed from copies, of which all classes have as many."""
    given = part.get_params(deep=False).get("class_weight")
    if not _counts_rows(part) or (alone and given == "balanced"):
        return
    raise TypeError(
        f"class_weight={given!r} of {type(part).__name__} would count weighted copies, of which "
        "each class has as many. Give a dict of label to weight, or None."
    )


def _counts_rows(classifier: Any) -> bool:
    """Whether a classifier computes class weights, as those of scikit-learn do by rows."""
    given = classifier.get_params(deep=False).get("class_weight")
    return isinstance(given, str) and not getattr(classifier, "_balances_by_weight", False)


def last_step(estimator: Any) -> Any:
    """The classifier at the end of a pipeline, or of one inside it."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def steps_before_last(estimator: Any) -> Pipeline | None:
    """Clones of all steps but the last, those of a pipeline at the end included."""
    steps: list[Any] = []
    while isinstance(estimator, Pipeline):
        steps += [step for _, step in estimator.steps[:-1]]
        estimator = estimator.steps[-1][1]
    named = [(f"step{number}", clone(step)) for number, step in enumerate(steps)]
    return Pipeline(named) if named else None


def fit_last(last: Any, X: Any, classes: NDArray, numbers: NDArray, targets: NDArray) -> Any:
    """Fit a classifier on weighted copies; without soft labels, on the samples as they are.

    On copies, ``class_weight="balanced"`` is about the labels in `numbers`, and
    ``early_stopping="auto"`` is False, because both would count copies.
    """
    samples, of_copy, weights = weighted_copies(targets)
    if len(samples) == len(targets):
        return last.fit(X, classes[of_copy])
    given = last.get_params()
    instead: dict[str, Any] = {
        name: False for name, value in given.items() if _stops_by_itself(name, value)
    }
    if _counts_rows(last):
        # The product of weights is what classifiers make of both; a dict is not: some encode y.
        of_class = compute_class_weight("balanced", classes=np.arange(len(classes)), y=numbers)
        weights, instead["class_weight"] = weights * of_class[of_copy], None
    last.set_params(**instead)
    last.fit(_safe_indexing(X, samples), classes[of_copy], sample_weight=weights)
    return last.set_params(**{name: given[name] for name in instead})


def _stops_by_itself(name: str, value: Any) -> bool:
    return name.rpartition("__")[2] == "early_stopping" and isinstance(value, str)


def fit_softly(estimator: Any, X: Any, classes: NDArray, numbers: NDArray, targets: NDArray) -> Any:
    """Fit a classifier, or the last step of a pipeline, on weighted copies of the samples.

    The steps before the last are fitted on the samples as they are, with their own labels.

    Parameters
    ----------
    estimator : scikit-learn classifier
        Fitted in place.
    X : bags or table
    classes : ndarray of shape (n_classes,)
    numbers : int ndarray of shape (n_samples,)
        Class number of each sample.
    targets : ndarray of shape (n_samples, n_classes)

    Returns
    -------
    fitted `estimator`
    """
    if not isinstance(estimator, Pipeline):
        return fit_last(estimator, X, classes, numbers, targets)
    head, (name, last) = estimator[:-1], estimator.steps[-1]
    if len(head):
        X = head.fit_transform(X, classes[numbers])
    last = fit_softly(last, X, classes, numbers, targets)
    estimator.steps = [*head.steps, (name, last)]  # with `memory`, a head replaces its steps
    return estimator
