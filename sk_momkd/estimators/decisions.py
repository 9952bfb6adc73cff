"""What `predict` of a fitted model decides, for slides and for patients of several slides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .decision_threshold import MovedThreshold


class Threshold(NamedTuple):
    """The class that `predict` takes from this probability on, and whose choice that was."""

    label: Any
    value: float
    source: str
    moved: MovedThreshold | None = None


class Predictions(NamedTuple):
    """Probabilities and decisions of one model for some bags.

    Attributes
    ----------
    proba : ndarray of shape (n_bags, n_classes)
    predicted : int ndarray of shape (n_bags,)
        Class numbers that `predict` gives.
    column : int
        Class number that `threshold` refers to.
    threshold : float
        From which probability of this class on `predict` takes it; NaN where it takes the most
        probable class, or decides in a way of its own.
    source : str
        Whose threshold it is; empty without one.
    moved : MovedThreshold or None
        Where the threshold was chosen, of the classifiers of this package.
    """

    proba: NDArray
    predicted: NDArray
    column: int
    threshold: float
    source: str
    moved: MovedThreshold | None = None

    @property
    def positive_threshold(self) -> float:
        """`threshold` on the probability of class number 1, of two classes."""
        return self.threshold if self.column == 1 else 1 - self.threshold

    def of_patients(self, owner: NDArray) -> tuple[NDArray, NDArray]:
        """Mean probabilities and decisions of patients 0, 1, ..., who own the bags.

        A patient with one bag has the class that `predict` gives it. For several bags the rule of
        `predict` is applied to the mean probability: its threshold, or the most probable class. A
        threshold that has moved to another prior is applied to the mean at the prior of its choice,
        so that the same patients stay positive. Where neither rule explains what `predict` gives
        for the bags, most bags decide, and on a tie the lower class number.
        """
        n_bags = np.bincount(owner)
        mean = _mean(self.proba, owner, n_bags)
        votes = _mean(np.eye(self.proba.shape[1])[self.predicted], owner, n_bags)
        if self._explained_by_threshold():
            at_choice, threshold = self.at_choice(owner)
            decided = np.where(at_choice >= threshold, self.column, 1 - self.column)
        elif np.array_equal(self.proba.argmax(axis=1), self.predicted):
            decided = mean.argmax(axis=1)
        else:
            decided = votes.argmax(axis=1)
        return mean, np.where(n_bags == 1, votes.argmax(axis=1), decided)

    def at_choice(self, owner: NDArray) -> tuple[NDArray, float]:
        """Mean probabilities of patients at the prior of the threshold's choice, and the threshold.

        Both are of the class number `column` and do not depend on the prior of now.
        """
        proba, threshold = self.proba[:, [self.column]], self.threshold
        if self.moved is not None and self.moved.odds != 1:
            threshold = self.moved.chosen_at
            proba = proba / (proba + self.moved.odds * (1 - proba))
        return _mean(proba, owner, np.bincount(owner))[:, 0], threshold

    def _explained_by_threshold(self) -> bool:
        if not np.isfinite(self.threshold):
            return False
        reached = self.proba[:, self.column] >= self.threshold
        return np.array_equal(reached, self.predicted == self.column)


def _mean(values: NDArray, owner: NDArray, n_bags: NDArray) -> NDArray:
    total = np.zeros((len(n_bags), values.shape[1]))
    np.add.at(total, owner, values)
    return total / n_bags[:, None]


def predictions(model: Any, bags: Any, classes: Sequence[Any]) -> Predictions:
    """Predict bags; columns and class numbers are in the order of `classes`.

    Parameters
    ----------
    model : fitted classifier with ``predict_proba``
    bags : BagSequence
    classes : sequence of labels
        A class that training did not have gets the probability 0.

    Raises
    ------
    ValueError
        If a value is not finite, or the model has, or predicts, a class that is none of `classes`.
    """
    raw = np.asarray(model.predict_proba(bags), dtype=float)
    invalid = np.flatnonzero(~np.isfinite(raw).all(axis=1))
    if len(invalid):
        i = int(invalid[0])
        raise ValueError(f"The prediction of {bags.name(i)} is not finite: {raw[i]}.")
    of_model = known_classes(model)
    if any(c not in classes for c in of_model):
        raise ValueError(f"The model knows the classes {of_model}, but y has {list(classes)}.")
    place = [list(classes).index(c) for c in of_model]
    proba = np.zeros((len(raw), len(classes)))
    proba[:, place] = raw
    predicted = _numbers(_decisions(model, bags, raw, of_model), classes)
    for label, value, source, moved in thresholds_of(model):
        column = list(classes).index(label)
        found = Predictions(proba, predicted, column, value, source, moved)
        if found._explained_by_threshold():
            return found
    return Predictions(proba, predicted, 1, np.nan, "")


def known_classes(model: Any) -> list[Any]:
    """Classes of a model, also of a threshold around a fitted estimator that was not fitted.

    Raises
    ------
    NotFittedError
        If nothing of it was fitted.
    """
    while not hasattr(model, "classes_") and hasattr(model, "estimator"):
        model = model.estimator
    if not hasattr(model, "classes_"):
        check_is_fitted(model)
    return np.asarray(model.classes_).tolist()


def _decisions(model: Any, bags: Any, proba: NDArray, of_model: list[Any]) -> NDArray:
    """What `predict` gives, without a second pass where it is known to follow from `proba`."""
    if not hasattr(model, "predict"):
        return np.asarray(of_model, dtype=object)[proba.argmax(axis=1)]
    inner = innermost(model)
    defined_by = next((kind for kind in type(inner).__mro__ if "predict" in vars(kind)), object)
    if "_decide" in vars(defined_by):
        return inner._decide(proba)
    return np.asarray(model.predict(bags))


def _numbers(labels: NDArray, classes: Sequence[Any]) -> NDArray:
    number = {c: k for k, c in enumerate(classes)}
    unknown = [label for label in labels.tolist() if label not in number]
    if unknown:
        raise ValueError(f"The model predicts {unknown[0]!r}, but the classes are {list(classes)}.")
    return np.array([number[label] for label in labels.tolist()], dtype=int)


def innermost(model: Any) -> Any:
    """The estimator whose `predict` that of pipelines and searches is."""
    if isinstance(model, Pipeline):
        return innermost(model.steps[-1][1])
    best = getattr(model, "best_estimator_", None)
    return model if best is None else innermost(best)


def thresholds_of(model: Any) -> Iterator[Threshold]:
    """Thresholds on probabilities at which `predict` may decide, most likely first.

    Those of this package's classifiers (`decision_threshold`), of `FixedThresholdClassifier` and
    of `TunedThresholdClassifierCV`. Which class the threshold of the last refers to depends on its
    scorer, so both are given.
    """
    model = innermost(model)
    name, labels = type(model).__name__, known_classes(model)
    if len(labels) != 2:
        return
    if (value := getattr(model, "decision_threshold_", None)) is not None:
        moved = model._moved_threshold() if hasattr(model, "_moved_threshold") else None
        yield Threshold(model.pos_label_, value, str(model.threshold_source_), moved)
    elif getattr(model, "response_method", None) in ("auto", "predict_proba"):
        value = getattr(model, "best_threshold_", getattr(model, "threshold", None))
        if isinstance(value, str) or value is None:
            return
        chosen = getattr(model, "pos_label", None)
        for label in [labels[1], labels[0]] if chosen is None else [chosen]:
            yield Threshold(label, float(value), name)
