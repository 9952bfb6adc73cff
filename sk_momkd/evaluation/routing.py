"""What the `fit` of an estimator, a pipeline or a search can take, and under which name."""

from __future__ import annotations

import inspect
import warnings
from copy import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter


def takes(estimator: Any, name: str) -> bool:
    """Whether `name` (omics, groups) reaches the classifier inside `estimator`."""
    return _keyword(estimator, name) is not None


def _keyword(estimator: Any, name: str) -> str | None:
    """Name under which the `fit` of `estimator` passes `name` to the classifier inside."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inner = None if last in (None, "passthrough") else _keyword(last, name)
        return None if inner is None else f"{step}__{inner}"
    if has_fit_parameter(estimator, name) and not _is_search(estimator):
        refused = name == "omics" and not getattr(estimator, "_uses_omics", True)
        return None if refused else name
    if _is_meta(estimator):
        inner = _keyword(estimator.estimator, name)
        kept = inner == "groups" and _is_search(estimator)  # a search uses these for its folds
        return None if kept else inner
    return None


def fit_arguments(estimator: Any, omics: Any, groups: Any, patients: Any) -> dict[str, Any]:
    """Keyword arguments for ``estimator.fit``.

    Parameters
    ----------
    estimator : scikit-learn estimator
    omics : OmicsTable or None
    groups : ndarray of shape (n_bags,) or None
        Sites, passed on where `fit` takes them.
    patients : ndarray of shape (n_bags,)
        What a search keeps whole in its folds where there are no sites.

    Raises
    ------
    TypeError
        If there is omics and no `fit` inside takes it.
    """
    arguments = {}
    if omics is not None:
        arguments[require_omics(estimator)] = omics
    if groups is not None and (keyword := _keyword(estimator, "groups")) is not None:
        arguments[keyword] = groups
    search = _search_path(estimator)
    if search is not None:
        arguments[f"{search}groups"] = patients if groups is None else groups
    return arguments


def require_omics(estimator: Any) -> str:
    """Name under which `fit` takes omics."""
    keyword = _keyword(estimator, "omics")
    if keyword is None:
        raise TypeError(
            f"{type(final_step(estimator)).__name__}.fit takes no omics. Pass omics=None, or an "
            "estimator that learns from omics, e.g. MoMKDClassifier."
        )
    return keyword


def final_step(estimator: Any) -> Any:
    """The classifier inside pipelines and searches; of a fitted search, the best one."""
    if isinstance(estimator, Pipeline):
        return final_step(estimator.steps[-1][1])
    for name in ("best_estimator_", "estimator_", "estimator"):
        inner = getattr(estimator, name, None)
        if isinstance(inner, BaseEstimator):
            return final_step(inner)
    return estimator


def set_seeds(estimator: Any, seed: int) -> Any:
    """Give each `random_state` inside `estimator` a number drawn from `seed`.

    The `cv` of a search that has none gets one, too.
    """
    random = np.random.RandomState(seed)
    for name, value in sorted(estimator.get_params(deep=True).items(), key=lambda item: item[0]):
        last = name.split("__")[-1]
        if last == "random_state":
            estimator.set_params(**{name: int(random.randint(2**31 - 1))})
        elif last == "cv" and _draws_folds(value):
            splitter = copy(value)
            splitter.random_state = int(random.randint(2**31 - 1))
            estimator.set_params(**{name: splitter})
    return estimator


def _draws_folds(splitter: Any) -> bool:
    return getattr(splitter, "random_state", 0) is None and getattr(splitter, "shuffle", True)


def warn_of_torn_patients(estimator: Any, n_bags: int, n_patients: int) -> None:
    """Say so if a search or a calibration inside has folds that part the slides of a patient."""
    splits = estimator
    while isinstance(splits, Pipeline):
        splits = splits.steps[-1][1]
    cv = getattr(splits, "cv", "prefit")
    if not hasattr(splits, "estimator") or isinstance(cv, str) or n_bags == n_patients:
        return
    splitter = check_cv(cv, [0, 1], classifier=True)
    if "Group" not in type(splitter).__name__ and "Patient" not in type(splitter).__name__:
        warnings.warn(
            f"{type(splits).__name__} splits by {type(splitter).__name__}, which parts the slides "
            f"of a patient ({n_bags} slides, {n_patients} patients). The outer folds stay honest; "
            "what is chosen or calibrated inside is not: use cv=PatientStratifiedKFold().",
            UserWarning,
            stacklevel=4,
        )


def _is_search(estimator: Any) -> bool:
    return hasattr(estimator, "refit") and hasattr(estimator, "return_train_score")


def _is_meta(estimator: Any) -> bool:
    if not isinstance(getattr(estimator, "estimator", None), BaseEstimator):
        return False
    kinds = {p.kind for p in inspect.signature(estimator.fit).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def _search_path(estimator: Any) -> str | None:
    """Prefix of a search that splits with a splitter of its own."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inner = _search_path(last)
        return None if inner is None else f"{step}__{inner}"
    whole = _is_search(estimator) and hasattr(estimator.cv, "split")
    return "" if whole else None
