"""The positive class of estimators inside of others: named once, and the same for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def agreed_pos_label(estimators: Iterable[Any], pos_label: Any) -> Any:
    """Positive class that `estimators`, or an evaluation of them, name; None if none does.

    Raises
    ------
    ValueError
        If two of them name different classes.
    """
    named = [] if pos_label is None else [("the evaluation", pos_label)]
    for estimator in estimators:
        for parameter, value in _pos_labels(estimator).items():
            if value is not None and not _encoding_ancestor(estimator, parameter):
                named.append((f"{type(estimator).__name__} ({parameter})", value))
    for who, value in named[1:]:
        if value != named[0][1]:
            raise ValueError(
                f"pos_label={named[0][1]!r} of {named[0][0]} and pos_label={value!r} of {who} "
                "contradict each other. Give one of them, or the same label."
            )
    return named[0][1] if named else None


def set_pos_label(estimator: Any, classes: Sequence[Any]) -> Any:
    """Set each `pos_label` inside `estimator` that is None to the last of two `classes`."""
    if len(classes) != 2:
        return estimator
    place = sorted(classes).index(classes[1])
    missing = [name for name, value in _pos_labels(estimator).items() if value is None]
    named = {n: place if _encoding_ancestor(estimator, n) else classes[1] for n in missing}
    return estimator.set_params(**named) if named else estimator


def require_estimator(estimator: Any) -> None:
    """Raise for a class and for what is no estimator of scikit-learn.

    Raises
    ------
    TypeError
    """
    if isinstance(estimator, type):
        name = estimator.__name__
        raise TypeError(f"The estimator is the class {name}; pass an instance, {name}().")
    if not hasattr(estimator, "get_params"):
        raise TypeError(
            f"The estimator is a {type(estimator).__name__}, expected a classifier of this package "
            "or of scikit-learn. compare(...) takes a dict of several, by name."
        )


def _pos_labels(estimator: Any) -> dict[str, Any]:
    """Parameters named `pos_label` of the estimator and of all inside it."""
    require_estimator(estimator)
    parameters = estimator.get_params(deep=True).items()
    return {k: value for k, value in parameters if k.rpartition("__")[2] == "pos_label"}


def _encoding_ancestor(estimator: Any, parameter: str) -> bool:
    """Whether an estimator around the one with this parameter fits it on labels 0, 1, ..."""
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier

    steps, parameters = parameter.split("__")[:-1], estimator.get_params(deep=True)
    around = [parameters["__".join(steps[:k])] for k in range(1, len(steps))]
    encoding = (StackingClassifier, VotingClassifier)
    per_class = (OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier)
    return bool(steps) and any(isinstance(e, encoding + per_class) for e in (estimator, *around))
