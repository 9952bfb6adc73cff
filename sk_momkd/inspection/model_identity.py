"""Text by which a fitted model is known again, also one that was saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator

from ..data.value_digest import WITHOUT_EFFECT, digest, value_text
from ..estimators.fitted_state import FittedStateMixin
from ..estimators.network_state import weights_of, without_omics

_OF_CLASS = (  # names of what a saved model leaves out, and of what has no effect
    *("_not_saved", "_fitted_omics"),
    *("_parameters_of_machine", "_parameters_of_patients", "_without_effect"),
)
_WITHOUT_EFFECT = (  # on the predictions of a fitted model
    *(*WITHOUT_EFFECT, "random_state", "device", "device_", "modules_", "module_"),
    *("history_", "teacher_report_", "teacher_verdict_", "training_patients_"),
    *("_left_out", "_metadata_request", "_sklearn_output_config"),
)


def model_digest(model: Any) -> str:
    """Digest of what a fitted model predicts with: weights, fitted values and parameters.

    It is the same for a model that was saved and loaded, with its omics branch or without.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> one, other = (DummyClassifier().fit([[0]] * 3, y) for y in ([0, 1, 1], [0, 0, 1]))
    >>> model_digest(one) == model_digest(other)
    False
    """
    return digest(_text(model))


def _text(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return value.to_csv()
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{k!r}: {_text(v)}' for k, v in value.items()))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if not _has_parts(value):
        return value_text(value)
    left_out = {*_WITHOUT_EFFECT}
    left_out.update(*(getattr(type(value), names, ()) for names in _OF_CLASS))
    state = {k: v for k, v in _state(value).items() if k not in left_out}
    return f"{type(value).__module__}.{type(value).__qualname__}{_text(state)}"


def _has_parts(value: Any) -> bool:
    """Whether an object is an estimator, options of one, or a part of one of scikit-learn."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return False
    return isinstance(value, BaseEstimator) or (
        type(value).__module__.startswith("sklearn.") and not callable(value)
    )


def _state(value: Any) -> dict[str, Any]:
    if not isinstance(value, FittedStateMixin):
        return vars(value)
    networks = [without_omics(weights_of(module)) for module in vars(value).get("modules_", ())]
    return value._state(with_patients=False) | {"networks": networks}
