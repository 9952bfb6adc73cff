"""Soft labels for any scikit-learn classifier: each sample is copied per class, with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

_SHIFTS, _CLOSE = 200, 1e-9


def at_class_shares(soft: NDArray, hard: NDArray) -> NDArray:
    """Soft labels whose mean is that of the hard labels: their logits are shifted by class.

    A teacher that was trained with balanced classes would otherwise move the probabilities of the
    student to balanced classes.

    Parameters
    ----------
    soft, hard : ndarray of shape (n_samples, n_classes)
        Rows sum to 1; every class has a hard label.

    Returns
    -------
    float64 ndarray of shape (n_samples, n_classes)
    """
    shares = hard.mean(axis=0)
    values = np.clip(soft, np.finfo(np.float64).tiny, None).astype(np.float64)
    for _ in range(_SHIFTS):
        values /= values.sum(axis=1, keepdims=True)
        ratio = shares / values.mean(axis=0)
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
        If it takes no ``sample_weight``, or splits its training data, which would put copies of a
        sample on both sides.
    """
    last = last_step(estimator)
    name = type(last).__name__
    if not has_fit_parameter(last, "sample_weight"):
        raise TypeError(
            f"{name}.fit takes no sample_weight, so it cannot be fitted on soft labels. Use a "
            "classifier that does, such as LogisticRegression, or omics=None."
        )
    if "cv" in last.get_params(deep=False):
        raise TypeError(
            f"{name} splits its training data, where each sample has a weighted copy per class: "
            "copies of one sample would be on both sides. Put it around PrivilegedClassifier, or "
            "use omics=None."
        )


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


def fit_last(last: Any, X: Any, classes: NDArray, targets: NDArray) -> Any:
    """Fit a classifier on weighted copies; without soft labels, on the samples as they are."""
    samples, numbers, weights = weighted_copies(targets)
    if len(samples) == len(targets):
        return last.fit(X, classes[numbers])
    copies = _safe_indexing(X, samples)
    return last.fit(copies, classes[numbers], sample_weight=weights)


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
        return fit_last(estimator, X, classes, targets)
    head, (name, last) = estimator[:-1], estimator.steps[-1]
    if len(head):
        X = head.fit_transform(X, classes[numbers])
    last = fit_softly(last, X, classes, numbers, targets)
    estimator.steps = [*head.steps, (name, last)]  # with `memory`, a head replaces its steps
    return estimator
