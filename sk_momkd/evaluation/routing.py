"""Fit arguments and seeds for an estimator, also inside a pipeline or a search."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from ..messages import warn


def final_estimator(estimator: Any) -> Any:
    """The classifier inside pipelines and searches; of a fitted search, the best one."""
    *_, last = layers(estimator)
    return last


def layers(estimator: Any) -> Iterator[Any]:
    """The estimator, and what is inside pipelines, searches and the like, from the outside in."""
    yield estimator
    if isinstance(estimator, Pipeline):
        yield from layers(estimator.steps[-1][1])
        return
    for name in ("best_estimator_", "estimator_", "estimator"):
        inner = getattr(estimator, name, None)
        if isinstance(inner, BaseEstimator):
            yield from layers(inner)
            return


def estimator_name(estimator: Any) -> str:
    """Name of the classifier inside pipelines and searches."""
    return type(final_estimator(estimator)).__name__


def accepts(estimator: Any, name: str) -> bool:
    """Whether the fit argument `name` (omics, groups) reaches a classifier inside."""
    if isinstance(estimator, Pipeline):
        return accepts(estimator.steps[-1][1], name)
    # Not of stacking, which hands fit arguments to its final estimator, too.
    voters = estimator.estimators if isinstance(estimator, VotingClassifier) else []
    inner = [e for _, e in voters if isinstance(e, BaseEstimator)]
    return _fit_keyword(estimator, name) is not None or any(accepts(e, name) for e in inner)


def require_omics(estimator: Any) -> None:
    """Check that a `fit` inside takes omics.

    Raises
    ------
    TypeError
        If none does.
    """
    if not accepts(estimator, "omics"):
        raise TypeError(
            f"{type(final_estimator(estimator)).__name__} is not trained with omics. Pass "
            "omics=None, or an estimator that learns from omics, e.g. MoMKDClassifier."
        )


def require_params(estimator: Any, names: Iterable[str]) -> None:
    """Check that a `fit` inside takes further arguments of these names.

    Raises
    ------
    TypeError
        If none does.
    """
    for name in names:
        if not accepts(estimator, name):
            raise TypeError(
                f"The fit of {type(final_estimator(estimator)).__name__} takes no {name}. Leave it "
                "out of params, or use an estimator that takes it."
            )


def fit_arguments(
    estimator: Any,
    omics: Any,
    groups: Any,
    patients: Any,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for ``estimator.fit``.

    Where scikit-learn's metadata routing is enabled, requests of the classifiers inside that are
    not set are set, and the arguments are those that are requested.

    Parameters
    ----------
    estimator : scikit-learn estimator
    omics : OmicsTable or None
    groups : ndarray of shape (n_bags,) or None
        Sites, passed on if `fit` takes groups.
    patients : ndarray of shape (n_bags,)
        Groups for the folds of a search if there are no sites.
    params : dict of str to ndarray of shape (n_bags, ...), optional
        Further arguments, by their name in the `fit` of the classifier inside.

    Raises
    ------
    TypeError
        If omics is given and no `fit` inside takes it.
    """
    arguments: dict[str, Any] = {}
    params = dict(params or {})
    if omics is not None:
        require_omics(estimator)
    if get_config()["enable_metadata_routing"]:
        given = {"omics": omics, "groups": groups} | params
        arguments = _routed_arguments(estimator, given, patients)
        if arguments or all(value is None for value in given.values()):
            return arguments
    if omics is not None:
        arguments[str(_fit_keyword(estimator, "omics"))] = omics
    if groups is not None and (keyword := _fit_keyword(estimator, "groups")) is not None:
        arguments[keyword] = groups
    arguments |= {str(_fit_keyword(estimator, name)): value for name, value in params.items()}
    search = _search_prefix(estimator)
    if search is not None:
        arguments[f"{search}groups"] = patients if groups is None else groups
    return arguments


def needs_routing(estimator: Any) -> bool:
    """Whether fit arguments reach the classifiers inside by metadata routing alone.

    It is so for scikit-learn's meta-estimators but for pipelines, searches and calibration.
    """
    if isinstance(estimator, Pipeline):
        return needs_routing(estimator.steps[-1][1])
    if _is_search(estimator) or isinstance(estimator, CalibratedClassifierCV):
        return needs_routing(estimator.estimator)
    around = hasattr(estimator, "estimator") or hasattr(estimator, "estimators")
    return around and type(estimator).__module__.startswith("sklearn.")


def _routed_arguments(estimator: Any, given: Mapping[str, Any], patients: Any) -> dict[str, Any]:
    """What the estimators and splitters inside request, by the name under which they do."""
    found: dict[str, Any] = {}
    for inner in _inside(estimator):
        requests = getattr(get_routing_for_object(inner), "fit", None)
        for name, value in given.items():
            asked = getattr(requests, "requests", {}).get(name, False)
            if asked is None:
                asked = value is not None and accepts(inner, name)
                inner.set_fit_request(**{name: asked})
            if isinstance(asked, str) and value is not None:
                found[asked] = value
    found |= {name: value for name, value in given.items() if value is not None}
    found.setdefault("groups", patients)  # for splitters
    consumed = get_routing_for_object(estimator).consumes("fit", list(found))
    return {name: value for name, value in found.items() if name in consumed}


def _inside(estimator: Any) -> Iterator[Any]:
    """The estimator and all inside it, each once."""
    parameters = [estimator, *estimator.get_params(deep=True).values()]
    known = {id(e): e for e in parameters if isinstance(e, BaseEstimator)}
    yield from known.values()


def _fit_keyword(estimator: Any, name: str) -> str | None:
    """Keyword under which ``estimator.fit`` passes `name` to the classifier inside."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inner = None if last in (None, "passthrough") else _fit_keyword(last, name)
        return None if inner is None else f"{step}__{inner}"
    if has_fit_parameter(estimator, name) and not _is_search(estimator):
        refused = name == "omics" and not getattr(estimator, "_takes_omics", True)
        return None if refused else name
    if _passes_fit_arguments(estimator):
        inner = _fit_keyword(estimator.estimator, name)
        kept = inner == "groups" and _is_search(estimator)  # a search uses these for its folds
        return None if kept else inner
    return None


def _search_prefix(estimator: Any) -> str | None:
    """Prefix of the fit arguments of a search whose `cv` is a splitter."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inner = _search_prefix(last)
        return None if inner is None else f"{step}__{inner}"
    return "" if _is_search(estimator) and hasattr(estimator.cv, "split") else None


def _is_search(estimator: Any) -> bool:
    return hasattr(estimator, "refit") and hasattr(estimator, "return_train_score")


def _passes_fit_arguments(estimator: Any) -> bool:
    """Whether this is a meta-estimator whose `fit` takes keyword arguments for the inner one."""
    if not isinstance(getattr(estimator, "estimator", None), BaseEstimator):
        return False
    kinds = {p.kind for p in inspect.signature(estimator.fit).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def set_seeds(estimator: Any, seed: int) -> Any:
    """Set each `random_state` inside `estimator` to a number drawn from `seed`.

    The `cv` of a search gets one too if it shuffles and has none.
    """
    random = np.random.RandomState(seed)
    parameters = estimator.get_params(deep=True)
    for name in sorted(parameters):
        value, last = parameters[name], name.split("__")[-1]
        if last == "random_state":
            estimator.set_params(**{name: int(random.randint(2**31 - 1))})
        elif last == "cv" and _shuffles_without_seed(value):
            splitter = copy(value)
            splitter.random_state = int(random.randint(2**31 - 1))
            estimator.set_params(**{name: splitter})
    return estimator


def _shuffles_without_seed(splitter: Any) -> bool:
    return getattr(splitter, "random_state", 0) is None and getattr(splitter, "shuffle", True)


def warn_if_patients_are_split(estimator: Any, n_bags: int, n_patients: int) -> None:
    """Warn if inner folds, of a search, calibration or stacking, separate slides of a patient."""
    outer = estimator
    while isinstance(outer, Pipeline):
        outer = outer.steps[-1][1]
    several = [inner for _, inner in getattr(outer, "estimators", None) or []]  # voting, stacking
    for inner in (*several, getattr(outer, "estimator", None)):
        if isinstance(inner, BaseEstimator):
            warn_if_patients_are_split(inner, n_bags, n_patients)
    cv = getattr(outer, "cv", "prefit")
    has_folds = hasattr(outer, "estimator") or hasattr(outer, "stack_method")
    if not has_folds or isinstance(cv, str) or n_bags == n_patients:
        return
    splitter = type(check_cv(cv, [0, 1], classifier=True)).__name__
    if "Group" not in splitter and "Patient" not in splitter:
        warn(
            f"{type(outer).__name__} splits by {splitter}, which separates the slides of a patient "
            f"({n_bags} slides, {n_patients} patients). The outer folds keep patients whole, but "
            "what is chosen or calibrated inside is biased: use cv=PatientStratifiedKFold().",
            UserWarning,
        )
