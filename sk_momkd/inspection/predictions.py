"""Predictions as a table, and as the CSV file that STAMP reads."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length

from ..data.bag_order import labels_in_bag_order
from ..data.patient import patient_labels
from ..data.sequence import BagSequence, as_bags
from ..data.training_patients import meet
from ..estimators.decisions import Predictions, known_classes, predictions
from ..io.atomic import atomic_write
from ..messages import first_few, warn

_STAMP_COLUMNS = ("PATIENT", "pred", "loss")


def prediction_table(
    clf: Any,
    bags: Any,
    y: Any = None,
    *,
    unit: str = "bag",
    allow_training_patients: bool = False,
) -> pd.DataFrame:
    """Return ids, labels and probabilities of bags or patients as a table.

    Parameters
    ----------
    clf : fitted classifier, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
    y : array-like of shape (n_bags,), optional
        Labels, which become a column of the table.
    unit : {"bag", "patient"}, default="bag"
        Whether a row is a bag or a patient, whose probabilities are the means over his or her bags.
        A bag without a patient id is a patient of its own.
    allow_training_patients : bool, default=False
        Do not warn of patients that the classifier was trained on.

    Returns
    -------
    DataFrame
        A row per bag: ``bag_id, patient_id``, ``y`` if it is given, ``p_<class>`` for each class,
        and ``predicted``, what `predict` says. A row per patient has ``n_bags`` instead of
        ``bag_id``; patients are in the order of their first bags, and their class follows from the
        mean probability by the rule of `predict`, as in :func:`evaluate`.

    Raises
    ------
    BagError
        If a bag is unusable; names it.
    CohortError
        With ``unit="patient"``, if bags of a patient have different labels; names the patient.
    ValueError
        If `y` has another length than `bags`, or `unit` is unknown.

    Warns
    -----
    UserWarning
        If the classifier was trained on some of the patients or slides: such predictions are too
        good. Models of scikit-learn do not remember whom they were trained on.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, prediction_table
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> prediction_table(clf, bags[:2]).columns.to_list()
    ['bag_id', 'patient_id', 'p_0', 'p_1', 'predicted']
    """
    if unit not in ("bag", "patient"):
        raise ValueError(f"unit must be 'bag' or 'patient', got {unit!r}.")
    bags = as_bags(bags)
    y = None if y is None else labels_in_bag_order(y, bags)
    check_consistent_length(bags, y)
    labels = None if y is None or unit == "bag" else patient_labels(bags, y)
    classes = known_classes(clf)
    found = predictions(clf, bags, classes)
    if not allow_training_patients:
        warn_of_training_patients(clf, bags)
    if unit == "patient":
        return _by_patient(bags, labels, found, classes)
    table = pd.DataFrame(
        {
            "bag_id": [bags.name(i) if b.bag_id is None else b.bag_id for i, b in enumerate(bags)],
            "patient_id": [bag.patient_id for bag in bags],
        }
    )
    return _with_predictions(table, y, found.proba, found.predicted, classes)


def warn_of_training_patients(clf: Any, bags: BagSequence) -> None:
    """Warn if some of the bags or their patients were in the training of a classifier."""
    met = meet([clf], bags)
    if met.names:
        warn(
            f"{met} were in the training of {type(clf).__name__}. Predictions for them are better "
            "than for new patients: do not compute metrics of them.",
            UserWarning,
        )


def _with_predictions(
    table: pd.DataFrame, y: Any, proba: NDArray, predicted: NDArray, classes: list[Any]
) -> pd.DataFrame:
    if y is not None:
        table["y"] = np.asarray(y)
    for c, column in zip(classes, proba.T, strict=True):
        table[f"p_{c}"] = column
    table["predicted"] = np.asarray(classes)[predicted]
    return table


def _by_patient(
    bags: BagSequence, labels: NDArray | None, found: Predictions, classes: list[Any]
) -> pd.DataFrame:
    """Predictions for each patient, in the order of the first bags."""
    groups = bags.groups()
    _, first, n_bags = np.unique(groups, return_index=True, return_counts=True)
    mean, predicted = found.of_patients(groups)
    names = [bags[int(i)].patient_id or bags.name(int(i)) for i in first]
    table = pd.DataFrame({"patient_id": names, "n_bags": n_bags})
    return _with_predictions(table, labels, mean, predicted, classes)


def to_stamp(predictions: pd.DataFrame, path: str | PathLike, *, label: str) -> pd.DataFrame:
    """Write predictions as STAMP's ``patient-preds.csv`` for its statistics and plots.

    Parameters
    ----------
    predictions : DataFrame
        Result of :func:`prediction_table`, or ``predictions`` of :func:`evaluate`: a table with
        ``patient_id`` (and ``bag_id``, used where that is missing), ``p_<class>`` and, if the
        labels are known, ``y``. Probabilities are averaged over the rows of a patient.
    path : path
        File to write. An interrupted write leaves no partial file.
    label : str
        Name of the column of true labels.

    Returns
    -------
    DataFrame
        The table that was written, a row per patient, ordered by loss as STAMP does: ``PATIENT``,
        `label`, ``pred`` (as in STAMP, the most probable class), ``<label>_<class>`` and ``loss``,
        the cross-entropy (empty without labels).

    Raises
    ------
    ValueError
        If a column is missing, slides of a patient have inconsistent labels, or `label` is the
        name of another column.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sk_momkd import to_stamp
    >>> table = pd.DataFrame(
    ...     {"patient_id": ["A", "A"], "y": "MSI", "p_MSI": [0.9, 0.7], "p_MSS": [0.1, 0.3]}
    ... )
    >>> to_stamp(table, tempfile.mkdtemp() + "/patient-preds.csv", label="isMSI").round(3)
      PATIENT isMSI pred  isMSI_MSI  isMSI_MSS   loss
    0       A   MSI  MSI        0.8        0.2  0.223
    """
    if label in _STAMP_COLUMNS:
        raise ValueError(
            f"label {label!r} is the name of another column of STAMP's table; choose another name."
        )
    columns = [str(c) for c in predictions.columns if str(c).startswith("p_")]
    if not columns or "patient_id" not in predictions:
        raise ValueError(
            "predictions need the columns patient_id and p_<class>, as in prediction_table; "
            f"got {list(predictions.columns)}."
        )
    patient = predictions["patient_id"]
    if "bag_id" in predictions:
        patient = patient.where(patient.notna(), predictions["bag_id"])
    if patient.isna().any():
        raise ValueError("A row of predictions has neither a patient id nor a bag id.")
    grouped = predictions.groupby(patient.astype(str).to_numpy(), sort=False)
    proba = grouped[columns].mean()
    classes = [c.removeprefix("p_") for c in columns]
    table = pd.DataFrame({"PATIENT": proba.index})
    truth = _truth(predictions, grouped, classes)
    table[label] = None if truth is None else truth
    table["pred"] = np.array(classes, dtype=object)[proba.to_numpy().argmax(axis=1)]
    for name, column in zip(classes, columns, strict=True):
        table[f"{label}_{name}"] = proba[column].to_numpy()
    table["loss"] = np.nan if truth is None else _loss(proba.to_numpy(), truth, classes)
    table = table.sort_values("loss", kind="stable", na_position="last", ignore_index=True)
    with atomic_write(Path(path)) as part:
        table.to_csv(part, index=False)
    return table


def _truth(predictions: pd.DataFrame, grouped: Any, classes: list[str]) -> NDArray | None:
    if "y" not in predictions:
        return None
    inconsistent = grouped["y"].nunique(dropna=False) > 1
    if inconsistent.any():
        raise ValueError(
            f"{inconsistent.sum()} patients have slides with inconsistent labels: "
            f"{first_few(inconsistent.index[inconsistent])}. Correct the labels, or give each "
            "slide its own patient_id."
        )
    truth = grouped["y"].first()
    unknown = sorted({str(c) for c in truth.dropna()} - set(classes))
    if unknown:
        raise ValueError(f"y holds {unknown[0]!r}, but there are probabilities only of {classes}.")
    return truth.map(str, na_action="ignore").to_numpy(dtype=object)


def _loss(proba: NDArray, truth: NDArray, classes: list[str]) -> NDArray:
    place = {c: k for k, c in enumerate(classes)}
    true = [p[place[c]] if c in place else np.nan for p, c in zip(proba, truth, strict=True)]
    return -np.log(np.clip(np.asarray(true, dtype=float), np.finfo(float).tiny, None))
