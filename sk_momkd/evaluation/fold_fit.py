"""One fold: fit a clone on the training part, predict the test part."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier

from ..data.omics import OmicsTable
from ..data.sequence import BagSequence
from ..data.training_patients import meet
from ..estimators.decisions import Predictions, innermost, predictions
from ..estimators.inner_pos_labels import set_pos_label
from ..estimators.validation_scores import threshold_of_patients
from ..exceptions import LeakageError
from ..progress import labelled
from .fold_results import FailedFold, FoldResult
from .peak_memory import PeakMemory
from .results import count_classes
from .routing import (
    final_estimator,
    fit_arguments,
    needs_routing,
    require_omics,
    require_params,
    set_seeds,
)
from .study import Split, Study
from .teacher_weights import choice_of

# What estimators raise; not an interrupt, nor a lack of what they are made of.
_OF_DATA = (ValueError, TypeError, LookupError, OSError)
FAILURES: tuple[type[Exception], ...] = (*_OF_DATA, ArithmeticError, RuntimeError, MemoryError)


_OF_MACHINE = (OSError, MemoryError)
_OF_GPU = ("OutOfMemoryError", "AcceleratorError")  # of torch, which may not be imported
_OF_GPU_LIBRARIES = ("CUDA error", "cuDNN error")


def is_of_machine(error: BaseException | None) -> bool:
    """Whether an error, or what has caused it, is of files, memory or a GPU.

    Another try may succeed, on the same data.
    """
    if error is None:
        return False
    kinds = [getattr(sys.modules.get("torch"), name, ()) for name in _OF_GPU]
    found = isinstance(error, (*_OF_MACHINE, *kinds)) or str(error).startswith(_OF_GPU_LIBRARIES)
    return found or is_of_machine(error.__cause__)


class Fold(NamedTuple):
    """One split of one repeat, with the seed and the omics of its fit."""

    repeat: int
    fold: int
    split: Split
    seed: int
    omics: OmicsTable | None


def check_estimator(estimator: Any, *, with_omics: bool, params: Iterable[str] = ()) -> None:
    """Raise if the estimator has no probabilities, or its `fit` does not take what is given."""
    inner = final_estimator(estimator)  # a stack makes its default final estimator in fit alone
    default_stack = isinstance(inner, StackingClassifier) and inner.final_estimator is None
    if not default_stack and not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, on which AUROC, calibration and "
            "decision curves rest here. Calibrate the classifier inside: "
            f"CalibratedClassifierCV({type(inner).__name__}(), cv=PatientStratifiedKFold())."
        )
    if with_omics:
        require_omics(estimator)
    require_params(estimator, params)


def result_or_failure(
    study: Study, estimator: Any, fold: Fold, *, catch: bool, note: str = "", **options: Any
) -> FoldResult | FailedFold:
    """Fit and predict a fold; with `catch`, an error of it is returned.

    `note` is added to errors; the `options` are `keep_model` and `measure_memory`.
    """
    try:
        return _fit_and_predict(study, estimator, fold, **options)
    except FAILURES as error:
        if note:
            error.add_note(note)
        if not catch or isinstance(error, LeakageError):  # of the study's design, not of a fold
            raise
        trained, tested = map(study.patients_at, fold.split)
        return FailedFold(fold.repeat, fold.fold, trained, tested, error)


def _fit_and_predict(
    study: Study, estimator: Any, fold: Fold, *, keep_model: bool, measure_memory: bool
) -> FoldResult:
    train, test = fold.split
    model = set_seeds(set_pos_label(clone(estimator), study.classes), fold.seed)
    groups = None if study.groups is None else study.groups[train]
    routed = get_config()["enable_metadata_routing"]
    params = {name: values[train] for name, values in study.params.items()}
    has_arguments = fold.omics is not None or groups is not None or bool(params)
    routed |= needs_routing(model) and has_arguments
    memory = PeakMemory() if measure_memory else nullcontext()
    label = labelled(f"repeat {fold.repeat}, fold {fold.fold}")
    routing = config_context(enable_metadata_routing=routed)
    with memory, routing, label, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        arguments = fit_arguments(model, fold.omics, groups, study.patient_of[train], params)
        start = time.perf_counter()
        try:
            model.fit(study.bags[train], study.y[train], **arguments)
        except FAILURES as error:
            error.add_note(_of_fold(study, fold))
            raise
        fit_seconds = time.perf_counter() - start
    _check_untrained_on(model, study, fold)
    start = time.perf_counter()
    try:
        found = predictions(model, study.bags[test], study.classes)
    except FAILURES as error:
        error.add_note(f"This was the prediction of fold {fold.fold} (repeat {fold.repeat}).")
        raise
    predict_seconds = time.perf_counter() - start
    proba, predicted = found.of_patients(np.unique(study.patient_of[test], return_inverse=True)[1])
    classifier = final_estimator(model)
    return FoldResult(
        fold.repeat,
        fold.fold,
        trained=study.patients_at(train),
        tested=study.patients_at(test),
        proba=proba,
        n_bags=np.unique(study.patient_of[test], return_counts=True)[1],
        threshold=threshold_of(model, found, study.classes),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
        fit_mib=memory.mib if isinstance(memory, PeakMemory) else None,
        model=model if keep_model else None,
        predicted=predicted,
        threshold_source=found.source,
        n_validation=None if found.source else _validation_counts(model, study.classes),
        prior=getattr(classifier, "prior", None) if hasattr(classifier, "sampled_prior_") else None,
        shares=_shares_of(classifier),
        **({} if fold.omics is None else choice_of(model)),
    )


def _shares_of(classifier: Any) -> dict[Any, float] | None:
    """Class shares that probabilities of this package's classifiers refer to; None of others."""
    if not hasattr(classifier, "sampled_prior_"):
        return None
    shares = classifier._shares_at(classifier.prior)
    return dict(zip(classifier.classes_.tolist(), shares.tolist(), strict=True))


def _check_untrained_on(model: Any, study: Study, fold: Fold) -> None:
    """Raise if a part of the model, which `fit` took over fitted, was trained on test patients."""
    met = meet([model], study.bags[fold.split[1]])
    if met.names:
        raise LeakageError(
            f"Part of {type(model).__name__} was trained before the evaluation, on {met} of the "
            f"test part of fold {fold.fold} (repeat {fold.repeat}). Pass an estimator that is "
            "trained in each fold, without FrozenEstimator or prefit models."
        )


def _of_fold(study: Study, fold: Fold) -> str:
    """Which fit of an evaluation failed, as a note of its error."""
    train, _ = fold.split
    patients = study.patients_at(train)
    counts = count_classes(study.classes, study.labels[patients])
    text = f"This was the fit of fold {fold.fold} (repeat {fold.repeat}), with {len(patients)} "
    text += f"training patients ({counts})"
    if fold.omics is not None:
        paired = study.patients_at(train[fold.omics.match(study.bags[train]) >= 0])
        counts = count_classes(study.classes, study.labels[paired])
        text += f", {len(paired)} of them with omics ({counts})"
    return f"{text}."


def bag_probabilities(model: Any, bags: BagSequence, classes: list[Any]) -> NDArray:
    """Predict probabilities in the order of `classes`; 0 for a class that training did not have.

    Raises
    ------
    ValueError
        If a value is not finite, or the model has a class that is none of `classes`.
    """
    return predictions(model, bags, classes).proba


def threshold_of(model: Any, found: Predictions, classes: list[Any]) -> float:
    """Threshold on the positive class: that of `predict`, else that of the validation part."""
    return found.positive_threshold if found.source else tuned_threshold(model, classes)


def tuned_threshold(model: Any, classes: list[Any]) -> float:
    """Threshold with the best F1 on the patients of the model's inner validation part.

    NaN if the model has none (attribute ``validation_``), for more than two classes, and for what
    decides in a way of its own around a classifier.
    """
    classifier = innermost(model)
    known = np.asarray(getattr(classifier, "classes_", ())).tolist()
    if len(classes) != 2 or len(known) != 2:
        return np.nan
    if hasattr(classifier, "_validation_threshold"):  # a classifier of this package
        return classifier._validation_threshold(classes[1])
    table = getattr(classifier, "validation_", None)
    return np.nan if table is None else threshold_of_patients(table, known, classes[1])


def _validation_counts(model: Any, classes: list[Any]) -> NDArray | None:
    """Patients of each class in the inner validation part of a model; None without one."""
    table = getattr(innermost(model), "validation_", None)
    if table is None:
        return None
    patient = table["patient_id"].where(table["patient_id"].notna(), table["bag_id"])
    named = patient.where(patient.notna(), pd.Series(range(len(table)), table.index))
    once = ~named.astype(str).duplicated()
    return np.array([(table.loc[once, "y"] == c).sum() for c in classes])
