"""The classifier of this package that a fitted estimator is, or ends in."""

from __future__ import annotations

import copy
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..estimators.base import BaseMILClassifier
from ..estimators.discovery import all_estimators
from ..estimators.momkd import MoMKDClassifier
from ..models.momkd import MoMKDOutput
from ..output import MILOutput


def fitted_classifier(clf: Any) -> BaseMILClassifier:
    """Return the fitted classifier of this package that `clf` is, or ends in.

    Raises
    ------
    TypeError
        If `clf` is, or ends in, any other estimator; names the classifiers that can be inspected.
    NotFittedError
        If the classifier is not fitted.
    """
    last = clf.steps[-1][1] if isinstance(clf, Pipeline) else clf
    if not isinstance(last, BaseMILClassifier):
        names = ", ".join(name for name, _ in all_estimators("classifier"))
        raise TypeError(
            f"{type(last).__name__} has no attention over patches. Expected one of {names}, or a "
            "Pipeline that ends in one. Of a search, pass its best_estimator_."
        )
    check_is_fitted(last)
    return last


def fitted_momkd(clf: Any) -> MoMKDClassifier:
    """Return the fitted `MoMKDClassifier` that `clf` is, or ends in.

    Of an ensemble, the result holds the first model only.

    Raises
    ------
    TypeError
        If `clf` is another classifier, which has no memory.
    """
    last = fitted_classifier(clf)
    if not isinstance(last, MoMKDClassifier):
        raise TypeError(
            f"{type(last).__name__} has no memory. Expected a MoMKDClassifier, or a Pipeline that "
            "ends in one. patch_attention works for every classifier of this package."
        )
    if not is_ensemble(last):
        return last
    first = copy.copy(last)
    first.modules_ = last.modules_[:1]
    return first


def is_ensemble(model: BaseMILClassifier) -> bool:
    """Whether predictions are the mean over several networks, each with a memory of its own."""
    return len(getattr(model, "modules_", ())) > 1


def momkd_output(output: MILOutput) -> MoMKDOutput:
    """Narrow the type of `output` to that of a MoMKD; raises a TypeError for other models."""
    if not isinstance(output, MoMKDOutput):
        raise TypeError(f"Expected the output of a MoMKD, got {type(output).__name__}.")
    return output
