"""Soft labels of an omics teacher, each from a model that never saw the patient's label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.omics import OmicsTable
from ..exceptions import OmicsError
from ..preprocessing.omics import LogCounts
from .privileged import seeded_clone

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
    classes: Sequence[Any] | None = None,
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
        Of the folds, and of a teacher that has no seed of its own.
    classes : sequence, optional
        Names of the class numbers, for messages.

    Returns
    -------
    float32 ndarray of shape (n_bags, n_classes)
        Zero where a bag has no omics.

    Raises
    ------
    OmicsError
        If a class has too few patients with omics, or the teacher's output is not finite, not one
        column per class, or the same for all patients.
    """
    classes = range(int(labels.max()) + 1) if classes is None else list(classes)
    known = pd.DataFrame({"row": rows, "label": labels, "group": groups})[rows >= 0]
    patients = known.groupby("row", sort=False).agg({"label": _most_frequent, "group": "first"})
    y = patients["label"].to_numpy()
    folds = _folds(y, patients["group"].to_numpy(), classes, random_state)
    genes = table.rows(patients.index.to_numpy())
    teacher = default_teacher() if teacher is None else teacher
    logits = _held_out_logits(seeded_clone(teacher, random_state), genes, y, folds)
    soft = np.zeros((len(rows), len(classes)), dtype=np.float32)
    place = pd.Series(np.arange(len(patients)), index=patients.index)
    soft[rows >= 0] = _softmax(logits / (temperature * _spread(logits)))[place.loc[known["row"]]]
    return soft


def _most_frequent(labels: pd.Series) -> int:
    return int(labels.mode().iloc[0])


def _folds(
    y: NDArray, groups: NDArray, classes: Sequence[Any], random_state: int
) -> list[tuple[NDArray, NDArray]]:
    """Grouped folds in each of which the teacher is trained on every class."""
    held = [len(np.unique(groups[y == c])) for c in range(len(classes))]
    if min(held) < 2:
        raise OmicsError(
            f"lambda_teacher needs every class in two groups of training patients with omics; "
            f"class {classes[int(np.argmin(held))]!r} is in {min(held)}. Pair more patients, or "
            "set lambda_teacher=0."
        )
    for shuffle in range(_SHUFFLES):  # with few groups a shuffle may leave a class out
        cv = StratifiedGroupKFold(
            min(_FOLDS, *held), shuffle=True, random_state=(random_state + shuffle) % 2**32
        )
        folds = list(cv.split(y, y, groups))
        if all(len(np.unique(y[train])) == len(classes) for train, _ in folds):
            return folds
    raise OmicsError(
        "No grouped split lets the omics teacher see every class. Use smaller groups, or set "
        "lambda_teacher=0."
    )


def _held_out_logits(
    model: Any, genes: pd.DataFrame, y: NDArray, folds: list[tuple[NDArray, NDArray]]
) -> NDArray:
    """Logits of each patient from the fold that left it out, (n_patients, n_classes)."""
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
    _require_opinion(model, values, int(y.max()) + 1, folds)
    return values


def _require_opinion(
    model: Any, logits: NDArray, n_classes: int, folds: list[tuple[NDArray, NDArray]]
) -> None:
    settings = model.get_params().items()
    pairwise = any(k.endswith("decision_function_shape") and v == "ovo" for k, v in settings)
    if logits.shape[1] != n_classes or (pairwise and n_classes > 2):
        raise OmicsError(
            f"The omics teacher's {logits.shape[1]} outputs are not one for each of the "
            f"{n_classes} classes. Use one against the rest, decision_function_shape='ovr'."
        )
    # Then only the folds' shares of the classes would tell patients apart: the labels held out.
    if not any(np.ptp(logits[held], axis=0).any() for _, held in folds):
        raise OmicsError(
            "The omics teacher says the same of all patients of a fold, so it learned nothing of "
            "their genes. Use another teacher, or set lambda_teacher=0."
        )


def _spread(logits: NDArray) -> float:
    """Standard deviation of a class's logit against the others', mean over the classes."""
    n_classes = logits.shape[1]
    others = (logits.sum(axis=1, keepdims=True) - logits) / (n_classes - 1)
    return max(float((logits - others).std(axis=0).mean()), np.finfo(float).tiny)


def _softmax(logits: NDArray) -> NDArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
