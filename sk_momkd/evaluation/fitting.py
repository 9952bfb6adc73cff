"""Fit on the training bags of a fold, predict its test bags, patient by patient."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone

from ..data.omics import OmicsTable
from ..data.sequence import BagSequence
from .peak_memory import PeakMemory
from .plan import Plan, Split
from .routing import final_step, fit_arguments, set_seeds, warn_of_torn_patients
from .scores import best_threshold
from .study import Study


class _Task(NamedTuple):
    repeat: int
    fold: int
    split: Split
    seed: int
    omics: OmicsTable | None


@dataclass(frozen=True)
class FoldOutcome:
    """What one fold gave.

    Attributes
    ----------
    repeat, fold : int
    trained, tested : int ndarray
        Patients.
    proba : ndarray of shape (n_tested, n_classes)
        Mean over a patient's bags.
    n_bags : int ndarray of shape (n_tested,)
    threshold : float
        Chosen on the inner validation part; NaN where there is none.
    fit_seconds, predict_seconds : float
    fit_mib : float
        Memory that the fit held at most above what was there; NaN where nobody watched.
    model : estimator or None
    """

    repeat: int
    fold: int
    trained: NDArray
    tested: NDArray
    proba: NDArray
    n_bags: NDArray
    threshold: float
    fit_seconds: float
    predict_seconds: float
    fit_mib: float
    model: Any


def run(
    study: Study,
    estimator: Any,
    plan: Plan,
    *,
    omics: Sequence[OmicsTable | None],
    n_jobs: int | None = None,
    keep_models: bool = False,
    watch_memory: bool = False,
) -> list[FoldOutcome]:
    """Outcomes of all folds of all repeats; `omics` has a table (or None) for each repeat."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, which evaluation needs. Use a "
            "classifier with probabilities, e.g. inside CalibratedClassifierCV."
        )
    warn_of_torn_patients(estimator, len(study.bags), len(study.names))
    tasks = [
        _Task(repeat, fold, split, plan.seeds[repeat][fold], omics[repeat])
        for repeat, folds in enumerate(plan.splits)
        for fold, split in enumerate(folds)
    ]
    outcomes = Parallel(n_jobs=n_jobs)(
        delayed(_run_fold)(
            study, estimator, task, keep_model=keep_models, watch_memory=watch_memory
        )
        for task in tasks
    )
    return list(outcomes)


def _run_fold(
    study: Study, estimator: Any, task: _Task, *, keep_model: bool, watch_memory: bool
) -> FoldOutcome:
    train, test = task.split
    model = set_seeds(clone(estimator), task.seed)
    groups = None if study.groups is None else study.groups[train]
    arguments = fit_arguments(model, task.omics, groups, study.patient_of[train])
    peak = PeakMemory()
    with (
        peak if watch_memory else nullcontext(),
        config_context(enable_metadata_routing=False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        start = time.perf_counter()
        model.fit(study.bags[train], study.y[train], **arguments)
        fit_seconds = time.perf_counter() - start
    fitted = time.perf_counter()
    proba = bag_probabilities(model, study.bags[test], study.classes)
    predicted = time.perf_counter()
    return FoldOutcome(
        task.repeat,
        task.fold,
        study.patients(train),
        study.patients(test),
        study.mean_over_bags(test, proba),
        np.unique(study.patient_of[test], return_counts=True)[1],
        tuned_threshold(model, study.classes),
        fit_seconds,
        predicted - fitted,
        peak.mib,
        model if keep_model else None,
    )


def bag_probabilities(model: Any, bags: BagSequence, classes: list[Any]) -> NDArray:
    """Probabilities in the order of `classes`; 0 for a class that training did not have.

    Raises
    ------
    ValueError
        If a value is not finite, or the model knows a class that is none of `classes`.
    """
    proba = np.asarray(model.predict_proba(bags), dtype=float)
    bad = np.flatnonzero(~np.isfinite(proba).all(axis=1))
    if len(bad):
        raise ValueError(f"The prediction of {bags.name(bad[0])} is not finite: {proba[bad[0]]}.")
    return _in_order(proba, list(np.asarray(model.classes_).tolist()), classes)


def _in_order(proba: NDArray, known: list[Any], classes: list[Any]) -> NDArray:
    foreign = [c for c in known if c not in classes]
    if foreign:
        raise ValueError(f"The model knows the classes {known}, but y has {classes}.")
    ordered = np.zeros((len(proba), len(classes)))
    ordered[:, [classes.index(c) for c in known]] = proba
    return ordered


def tuned_threshold(model: Any, classes: list[Any]) -> float:
    """Threshold with the best F1 on the patients of the model's inner validation part.

    NaN where the model has none (attribute ``validation_``), and for more than two classes.
    """
    last = final_step(model)
    table = getattr(last, "validation_", None)
    if table is None or len(classes) != 2 or len(getattr(last, "classes_", ())) != 2:
        return np.nan
    columns = [c for c in table.columns if str(c).startswith("p_")]
    known = np.asarray(last.classes_).tolist()
    positive = table[columns[known.index(classes[1])]]
    unknown = pd.Series([f"row {i}" for i in range(len(table))], index=table.index)
    bag = table["bag_id"].where(table["bag_id"].notna(), unknown)
    owner = table["patient_id"].where(table["patient_id"].notna(), bag).astype(str)
    by_patient = pd.DataFrame({"p": positive, "y": table["y"] == classes[1]}).groupby(owner).mean()
    return best_threshold((by_patient["y"] > 0.5).to_numpy(), by_patient["p"].to_numpy())
