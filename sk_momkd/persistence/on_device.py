"""The device on which a loaded model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..estimators.base import BaseMILClassifier
from ..estimators.parameters import Parameters
from ..messages import warn
from ..training.config import resolve_device
from .sklearn_steps import is_of_sklearn


def move_to(model: Any, device: str | None) -> None:
    """Set `device` of all classifiers in `model`, or "auto" where that of the file is absent.

    Raises
    ------
    ValueError
        If `device` is given and cannot be used here.
    """
    if device is not None:
        resolve_device(device)
    for classifier in classifiers_in(model, set()):
        if device is not None:
            classifier.device = device
        elif not _is_here(classifier.device):
            warn(
                f"The model was saved with device={classifier.device!r}, which is absent here, and "
                'is loaded with "auto". Choose with load_model(path, device=...).',
                UserWarning,
            )
            classifier.device = "auto"


def _is_here(device: str) -> bool:
    try:
        resolve_device(device)
    except ValueError:
        return False
    return True


def classifiers_in(value: Any, seen: set[int]) -> Iterator[BaseMILClassifier]:
    """All classifiers of this package in an estimator, fitted and unfitted."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseMILClassifier):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from classifiers_in(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from classifiers_in(item, seen)
    elif isinstance(value, Parameters) or (is_of_sklearn(value) and hasattr(value, "__dict__")):
        yield from classifiers_in(vars(value), seen)
