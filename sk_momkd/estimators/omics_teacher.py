"""Soft labels of an omics teacher, cross-fitted: no patient's label reaches its own soft label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.omics import OmicsTable
from ..exceptions import OmicsError
from ..model_selection.split import MOST_SHUFFLES, shuffled_folds
from ..preprocessing.expression_outliers import ExpressionClipper, clip_outliers
from ..preprocessing.omics import LogCounts
from .privileged import seeded_clone

_FOLDS = 5


def default_teacher() -> Any:
    """Strongly regularised logistic regression on all genes, without their outliers."""
    regression = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=1000)
    return make_pipeline(LogCounts(), ExpressionClipper(), StandardScaler(), regression)


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
    """Predict a soft label for each training bag with omics by a teacher fitted on other groups.

    The soft label is ``softmax(z / (temperature * sd))``, where z are the teacher's logits and sd
    their standard deviation over the patients, so that all teachers are equally confident on
    average. In sd, logits that are far from all others are clipped as :class:`ExpressionClipper`
    does, so that a single patient does not make the teacher unsure of the others.

    Parameters
    ----------
    teacher : scikit-learn classifier
        It has ``decision_function`` or ``predict_proba``, is cloned, and is fitted on a table of
        patients x genes. None is :func:`default_teacher`.
    table : OmicsTable
    rows : int ndarray of shape (n_bags,)
        Row of each training bag in `table`, -1 for none.
    labels : int ndarray of shape (n_bags,)
        Class numbers.
    groups : int ndarray of shape (n_bags,)
        Groups (patients, sites) that the folds of the cross-fitting keep together.
    temperature : float
    random_state : int
        Seed of the folds, and of a teacher that has no seed of its own.
    classes : sequence, optional
        Names of the class numbers, for messages.

    Returns
    -------
    float32 ndarray of shape (n_bags, n_classes)
        Rows of bags without omics are zero.

    Raises
    ------
    OmicsError
        If a class has too few patients with omics, or if the teacher's output is not finite, has
        not one column per class, or is the same for all patients.
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
    soft[rows >= 0] = soft_labels(logits, temperature)[place.loc[known["row"]]]
    return soft


def soft_labels(logits: NDArray, temperature: float) -> NDArray:
    """``softmax(logits / (temperature * sd))``, sd as described in :func:`cross_fitted_labels`."""
    return softmax(logits / (temperature * _spread(logits)), axis=1)


def _most_frequent(labels: pd.Series) -> int:
    return int(labels.mode().iloc[0])


def _folds(
    y: NDArray, groups: NDArray, classes: Sequence[Any], random_state: int
) -> list[tuple[NDArray, NDArray]]:
    """Grouped folds; each training part has every class."""
    held = [len(np.unique(groups[y == c])) for c in range(len(classes))]
    if min(held) < 2:
        raise OmicsError(
            f"lambda_teacher needs every class in two groups of training patients with omics; "
            f"class {classes[int(np.argmin(held))]!r} is in {min(held)}. Pair more patients, or "
            "set lambda_teacher=0."
        )
    splitters = (
        StratifiedGroupKFold(
            min(_FOLDS, *held), shuffle=True, random_state=(random_state + shuffle) % 2**32
        )
        for shuffle in range(MOST_SHUFFLES)
    )
    for folds in shuffled_folds(splitters, y, groups):
        if all(len(np.unique(y[train])) == len(classes) for train, _ in folds):
            return folds
    raise OmicsError(
        "No grouped split lets the omics teacher see every class. Use smaller groups, or set "
        "lambda_teacher=0."
    )


def _held_out_logits(
    model: Any, genes: pd.DataFrame, y: NDArray, folds: list[tuple[NDArray, NDArray]]
) -> NDArray:
    """Out-of-fold logits of each patient, of shape (n_patients, n_classes)."""
    method = _logit_method(model)
    with config_context(enable_metadata_routing=False):
        values = cross_val_predict(model, genes, y, cv=folds, method=method)
    logits = _as_logits(model, values, genes, int(y.max()) + 1)
    # Differences between folds alone would come from the labels that were held out.
    if not any(np.ptp(logits[held], axis=0).any() for _, held in folds):
        raise OmicsError(
            "The omics teacher predicts the same for all patients of each fold, so it learned "
            "nothing from their genes. Use another teacher, or set lambda_teacher=0."
        )
    return logits


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
