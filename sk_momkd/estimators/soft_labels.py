"""Soft labels of an omics teacher, each from a model that never saw the patient's label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.omics import OmicsTable
from ..exceptions import OmicsError
from .omics_transformer import LogCounts

_FOLDS = 5
_SHUFFLES = 20


def default_teacher() -> Any:
    """Strongly regularised logistic regression on all genes."""
    regression = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=1000)
    return make_pipeline(LogCounts(), StandardScaler(), regression)


def cross_fitted_labels(
    teacher: Any,
    table: OmicsTable,
    rows: NDArray,
    labels: NDArray,
    groups: NDArray,
    *,
    temperature: float,
    random_state: int,
) -> NDArray:
    """Soft label of each training bag with omics, by a teacher that was fitted on other groups.

    ``s = softmax(z / (temperature * sd))``: z the teacher's logits, sd their standard deviation
    over the patients, so that every teacher is equally sure on average.

    Parameters
    ----------
    teacher : scikit-learn classifier
        With ``decision_function`` or ``predict_proba``; cloned, fitted on patients x genes.
    table : OmicsTable
    rows : int ndarray of shape (n_bags,)
        Row of each training bag in `table`, -1 for none.
    labels, groups : int ndarray of shape (n_bags,)
        Class number, and what stays whole when the teacher is cross-fitted.
    temperature : float
    random_state : int
        Of the folds.

    Returns
    -------
    float32 ndarray of shape (n_bags, n_classes)
        Zero where a bag has no omics.

    Raises
    ------
    OmicsError
        If a class has too few patients with omics, or the teacher's output is not finite.
    """
    n_classes = int(labels.max()) + 1
    known = pd.DataFrame({"row": rows, "label": labels, "group": groups})[rows >= 0]
    patients = known.groupby("row").agg({"label": _most_frequent, "group": "first"})
    y = patients["label"].to_numpy()
    folds = _folds(y, patients["group"].to_numpy(), n_classes, random_state)
    genes = table.rows(patients.index.to_numpy())
    logits = _held_out_logits(teacher, genes, y, folds)
    soft = np.zeros((len(rows), n_classes), dtype=np.float32)
    place = pd.Series(np.arange(len(patients)), index=patients.index)
    soft[rows >= 0] = _softmax(logits / (temperature * _spread(logits)))[place.loc[known["row"]]]
    return soft


def _most_frequent(labels: pd.Series) -> int:
    return int(labels.mode().iloc[0])


def _folds(
    y: NDArray, groups: NDArray, n_classes: int, random_state: int
) -> list[tuple[NDArray, NDArray]]:
    """Grouped folds in each of which the teacher is trained on every class."""
    held = [len(np.unique(groups[y == c])) for c in range(n_classes)]
    if min(held) < 2:
        raise OmicsError(
            f"lambda_teacher needs every class in two groups of training patients with omics; "
            f"class number {int(np.argmin(held))} is in {min(held)}. Pair more patients, or set "
            "lambda_teacher=0."
        )
    for shuffle in range(_SHUFFLES):  # with few groups a shuffle may leave a class out
        cv = StratifiedGroupKFold(
            min(_FOLDS, *held), shuffle=True, random_state=(random_state + shuffle) % 2**32
        )
        folds = list(cv.split(y, y, groups))
        if all(len(np.unique(y[train])) == n_classes for train, _ in folds):
            return folds
    raise OmicsError(
        "No grouped split lets the omics teacher see every class. Use smaller groups, or set "
        "lambda_teacher=0."
    )


def _held_out_logits(
    teacher: Any, genes: pd.DataFrame, y: NDArray, folds: list[tuple[NDArray, NDArray]]
) -> NDArray:
    """Logits of each patient from the fold that left it out, (n_patients, n_classes)."""
    model = default_teacher() if teacher is None else clone(teacher)
    method = "decision_function" if hasattr(model, "decision_function") else "predict_proba"
    with config_context(enable_metadata_routing=False):
        values = cross_val_predict(model, genes, y, cv=folds, method=method)
    if method == "predict_proba":
        values = np.log(np.clip(values, np.finfo(float).eps, None))
    if values.ndim == 1:
        values = np.stack([0 * values, values], axis=1)
    if not np.isfinite(values).all():
        bad = genes.index[~np.isfinite(values).all(axis=1)][0]
        raise OmicsError(f"The omics teacher's output for patient {bad!r} is not finite.")
    return values


def _spread(logits: NDArray) -> float:
    """Standard deviation of a class's logit against the others', mean over the classes."""
    n_classes = logits.shape[1]
    others = (logits.sum(axis=1, keepdims=True) - logits) / (n_classes - 1)
    return max(float((logits - others).std(axis=0).mean()), np.finfo(float).tiny)


def _softmax(logits: NDArray) -> NDArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
