"""Checks of fitted steps whose content scikit-learn's compiled code follows unchecked.

Forests, support vector machines and nearest neighbours read their arrays at places that other
arrays name. What they rely on is checked here, before a loaded step is used for the first time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..exceptions import ModelFileError
from .stored_trees import is_tree

_METHODS = ("auto", "predict_proba", "decision_function", "predict")  # these check their input
ELSE = (
    "Or keep the whole model with joblib.dump, and load with joblib.load what is your own alone: "
    "loading a pickle runs any code in it."
)
_METRICS = ("minkowski", "euclidean", "manhattan", "chebyshev", "cosine", "l1", "l2", "cityblock")
_KERNELS = ("linear", "poly", "rbf", "sigmoid")


def require_sound(step: Any, name: str, *, saving: bool = False) -> None:
    """Raise unless whatever a step holds can be used without reading beyond its arrays.

    Raises
    ------
    ModelFileError
        Naming the step or its file.
    """
    left, seen = [step], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if (items := _items(value)) is not None:
            if any(map(is_tree, items)):
                raise ModelFileError(f"{name} holds a tree that belongs to no estimator.")
            left.extend(items)
        elif type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__"):
            _require_sound(value, name, saving)
            left.extend(vars(value).values())


def _items(value: Any) -> list[Any] | None:
    """What a container holds; None for other values."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else None


def _require_sound(value: Any, name: str, saving: bool) -> None:
    kind = type(value).__name__
    try:
        own, check = vars(value), _CHECKS.get(kind, _without_tree)
        # An attribute in place of a method could leave out what the method checks.
        is_sound = check(own) and not any(callable(getattr(type(value), k, None)) for k in own)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        is_sound = False
    if is_sound:
        return
    if saving:
        raise ModelFileError(
            f"{name} holds a {kind} that a file cannot hold. {_CAN_BE_SAVED[kind]} {ELSE}"
        )
    raise ModelFileError(
        f"{name} holds a {kind} whose parts do not fit together, so that using it could crash the "
        "process. It is damaged, or was not made by save_model."
    )


def _without_tree(own: dict[str, Any]) -> bool:
    """Only the estimators of trees may hold one."""
    return not any(map(is_tree, own.values()))


def _is_sound_tree(own: dict[str, Any]) -> bool:
    if "tree_" not in own:
        return _without_tree(own)
    tree = own["tree_"]
    fits = is_tree(tree) and tree.n_features == own["n_features_in_"] and tree.n_outputs == 1
    return fits and own["n_outputs_"] == 1 and tree.max_n_classes == own["n_classes_"]


def _is_sound_forest(own: dict[str, Any]) -> bool:
    """Its trees do not check themselves how many features they are given."""
    trees, width = own.get("estimators_", []), own.get("n_features_in_")
    if not trees:
        return True
    are_alike = all(vars(tree).get("n_features_in_") == width for tree in trees)
    fits = own["n_outputs_"] == 1 and own["n_classes_"] == len(own["classes_"])
    return type(trees) is list and are_alike and type(width) is int and fits


def _calls_public_methods(own: dict[str, Any]) -> bool:
    """Methods that are called by name; private ones do not look at their input."""
    names = [own.get("stack_method", "auto"), own.get("response_method", "auto")]
    return all(name in _METHODS for name in [*names, *own.get("stack_method_", [])])


def _is_unfitted(own: dict[str, Any]) -> bool:
    return not any(key.endswith("_") or key.startswith("_") for key in own if key != _REQUESTS)


def _is_sound_svc(own: dict[str, Any]) -> bool:
    if "support_vectors_" not in own:
        return _is_unfitted(own)
    vectors, counts = own["support_vectors_"], own["_n_support"]
    n_classes, n = len(own["classes_"]), len(vectors)
    pairs = n_classes * (n_classes - 1) // 2
    shapes = {
        "support_vectors_": (n, own["n_features_in_"]),
        "support_": (n,),
        "_n_support": (n_classes,),
        "_dual_coef_": (n_classes - 1, n),
        "_intercept_": (pairs,),
    }
    of_probabilities = {own["_probA"].shape, own["_probB"].shape}
    return (
        n_classes >= 2
        and own["_sparse"] is False
        and own["kernel"] in _KERNELS
        and "_impl" not in own
        and all(isinstance(own[k], np.ndarray) and own[k].shape == s for k, s in shapes.items())
        and bool((counts >= 0).all())
        and int(counts.sum(dtype=np.int64)) == n
        and of_probabilities in ({(0,)}, {(pairs,)})
    )


def _is_sound_neighbors(own: dict[str, Any]) -> bool:
    if "_fit_X" not in own:
        return _is_unfitted(own)
    points, labels, n_neighbors = own["_fit_X"], own["_y"], own["n_neighbors"]
    n, parameters = len(points), (own["effective_metric_params_"], own["metric_params"] or {})
    powers = [value for given in parameters for value in given.values()]
    return (
        own["_fit_method"] == "brute"
        and own["_tree"] is None
        and own["outputs_2d_"] is False
        and own["weights"] in ("uniform", "distance")
        and own["metric"] in _METRICS
        and own["effective_metric_"] in _METRICS
        and all(set(given) <= {"p"} for given in parameters)
        and all(isinstance(power, int | float) for power in powers)
        and isinstance(points, np.ndarray)
        and points.shape == (n, own["n_features_in_"])
        and isinstance(labels, np.ndarray)
        and labels.shape == (n,)
        and labels.dtype.kind == "i"
        and bool(((labels >= 0) & (labels < len(own["classes_"]))).all())
        and isinstance(n_neighbors, int | np.integer)
        and bool(1 <= n_neighbors <= n)
        and own["n_samples_fit_"] == n
    )


_REQUESTS = "_metadata_request"
_OF_SVC = f"It can be saved if it was fitted on dense data with a kernel of {', '.join(_KERNELS)}."
_OF_TREES = "It can be saved if it was fitted with one label per slide."
_OF_METHODS = f"It can be saved if it calls one of {', '.join(_METHODS)}."
_CAN_BE_SAVED: defaultdict[str, str] = defaultdict(lambda: "It can be saved before it is fitted.")
_CAN_BE_SAVED |= {
    "KNeighborsClassifier": "It can be saved if it was fitted with algorithm='brute', which finds "
    f"the same neighbours, weights by name, and a metric of {', '.join(_METRICS)}.",
    "SVC": _OF_SVC,
    "NuSVC": _OF_SVC,
    "DecisionTreeClassifier": _OF_TREES,
    "ExtraTreeClassifier": _OF_TREES,
    "RandomForestClassifier": _OF_TREES,
    "ExtraTreesClassifier": _OF_TREES,
    "StackingClassifier": _OF_METHODS,
    "FixedThresholdClassifier": _OF_METHODS,
    "TunedThresholdClassifierCV": _OF_METHODS,
}
_CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "DecisionTreeClassifier": _is_sound_tree,
    "ExtraTreeClassifier": _is_sound_tree,
    "RandomForestClassifier": _is_sound_forest,
    "ExtraTreesClassifier": _is_sound_forest,
    "SVC": _is_sound_svc,
    "NuSVC": _is_sound_svc,
    "KNeighborsClassifier": _is_sound_neighbors,
    "StackingClassifier": _calls_public_methods,
    "FixedThresholdClassifier": _calls_public_methods,
    "TunedThresholdClassifierCV": _calls_public_methods,
    "IsolationForest": _is_unfitted,
    "HistGradientBoostingClassifier": _is_unfitted,
}
