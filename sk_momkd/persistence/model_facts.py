"""What people want to know of a model: classes, widths, prevalence, threshold, training."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from .. import __version__
from ..estimators.base import BaseMILClassifier
from ..versions import version_of
from .on_device import classifiers_in

_PACKAGES = ("torch", "scikit-learn", "numpy", "safetensors", "skops")


def versions() -> dict[str, str]:
    """Versions of the packages that write a model."""
    own = {"sk_momkd": __version__, "python": sys.version.split()[0]}
    return own | {package: version_of(package) for package in _PACKAGES}


def summary(estimator: BaseEstimator) -> dict[str, Any]:
    """Facts of a fitted estimator for people and for the model card; loading does not need them."""
    facts: dict[str, Any] = {"estimator": type(estimator).__name__}
    if hasattr(estimator, "steps"):
        facts["steps"] = [type(step).__name__ for _, step in estimator.steps]
    fitted = [c for c in classifiers_in(estimator, set()) if hasattr(c, "module_")]
    if fitted:
        facts |= _of_classifier(fitted[0])
    elif len(getattr(estimator, "classes_", ())):
        facts["classes"] = _plain(estimator.classes_)
    for name in ("best_threshold_", "threshold"):
        if isinstance(found := vars(estimator).get(name), float | np.floating):
            facts["threshold"] = _plain(found)
    return facts


def _of_classifier(clf: BaseMILClassifier) -> dict[str, Any]:
    facts = {
        "classifier": type(clf).__name__,
        "classes": _plain(clf.classes_),
        "positive_class": _plain(clf.pos_label_),
        "n_features": int(clf.n_features_in_),
        "features": {key: _plain(value) for key, value in vars(clf).get("bag_info_", {}).items()},
        "training": _training(clf),
    }
    for key, attribute in (("prevalence", "class_prior_"), ("drawn", "sampled_prior_")):
        if attribute in vars(clf):
            facts[key] = _plain(vars(clf)[attribute])
    with suppress(ValueError):  # it does not fit the classes or the prior, which predict says, too
        if clf.decision_threshold_ is not None:
            facts["threshold"] = clf.decision_threshold_
            facts["threshold_source"] = clf.threshold_source_
    if "genes_" in vars(clf):
        facts["n_genes"], facts["n_paired"] = len(clf.genes_), clf.n_paired_
    return facts


def _training(clf: BaseMILClassifier) -> dict[str, Any]:
    """Epochs, seed, device, the share of a regression, and the last row of the history."""
    known = vars(clf)
    facts = {
        "n_models": len(clf.modules_),
        "n_epochs": known.get("n_iter_"),
        "random_state": _plain(clf.random_state),
        "device": known.get("device_"),
        "precision": known.get("precision_"),
    }
    if (head := clf._pooled_head) is not None:
        facts["pooled_share"] = _plain(head.share)
    if len(known.get("history_", ())):
        facts["last_epoch"] = {k: _plain(v) for k, v in clf.history_.iloc[-1].items()}
    return facts


def _plain(value: Any) -> Any:
    """A value of JSON; text where there is none."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(type(value).__name__)
