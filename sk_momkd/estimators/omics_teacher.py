"""The default omics teacher, the logits of any, and the soft labels that these give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..exceptions import OmicsError
from ..preprocessing.expression_outliers import ExpressionClipper, clip_outliers
from ..preprocessing.omics import LogCounts

_FOLDS = 5


def default_teacher() -> Any:
    """Strongly regularised logistic regression on all genes, without their outliers."""
    regression = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=1000)
    return make_pipeline(LogCounts(), ExpressionClipper(), StandardScaler(), regression)


def soft_labels(logits: NDArray, temperature: float) -> NDArray:
    """Soft labels of logits, ``softmax(logits / (temperature * sd))``.

    sd is their standard deviation over the patients, so that all teachers are equally confident on
    average. In it, logits that are far from all others are clipped as :class:`ExpressionClipper`
    does, so that a single patient does not make the teacher unsure of the others.

    Parameters
    ----------
    logits : ndarray of shape (n_patients, n_classes)
    temperature : float

    Returns
    -------
    ndarray of shape (n_patients, n_classes)
    """
    return softmax(logits / (temperature * _spread(logits)), axis=1)


def logits_of(model: Any, genes: pd.DataFrame, n_classes: int) -> NDArray:
    """Logits of a fitted teacher for patients, of shape (n_patients, n_classes).

    Raises
    ------
    OmicsError
        If they are not finite, or there is not one for each class.
    """
    values = getattr(model, _logit_method(model))(genes)
    return _as_logits(model, values, genes, n_classes)


def _logit_method(model: Any) -> str:
    return "decision_function" if hasattr(model, "decision_function") else "predict_proba"


def _as_logits(model: Any, values: NDArray, genes: pd.DataFrame, n_classes: int) -> NDArray:
    if _logit_method(model) == "predict_proba":
        values = np.log(np.clip(values, np.finfo(float).eps, None))
    if values.ndim == 1:
        values = np.stack([0 * values, values], axis=1)
    if not np.isfinite(values).all():
        bad = genes.index[~np.isfinite(values).all(axis=1)][0]
        raise OmicsError(f"The omics teacher's output for patient {bad!r} is not finite.")
    settings = model.get_params().items()
    pairwise = any(k.endswith("decision_function_shape") and v == "ovo" for k, v in settings)
    if values.shape[1] != n_classes or (pairwise and n_classes > 2):
        raise OmicsError(
            f"The omics teacher has {values.shape[1]} outputs, expected one for each of the "
            f"{n_classes} classes. Use one-vs-rest, decision_function_shape='ovr'."
        )
    return values


def _spread(logits: NDArray) -> float:
    """Standard deviation of a class's logit minus the mean of the others, averaged over classes.

    Outliers count as much as a patient at the limit of :class:`ExpressionClipper`.
    """
    n_classes = logits.shape[1]
    others = (logits.sum(axis=1, keepdims=True) - logits) / (n_classes - 1)
    return max(float(clip_outliers(logits - others).std(axis=0).mean()), np.finfo(float).tiny)
