"""Predictions of the folds, and the patients of a repeat with their weighted metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .metrics import patient_metrics, placements, pooled_auroc
from .statistics import Bootstrap
from .study import Study


@dataclass(frozen=True)
class FoldResult:
    """Predictions and costs of one fold.

    Attributes
    ----------
    repeat, fold : int
    trained, tested : int ndarray
        Patient numbers.
    proba : ndarray of shape (n_tested, n_classes)
        Mean over the bags of a patient.
    n_bags : int ndarray of shape (n_tested,)
    threshold : float
        At which `predict` decides; else chosen on the inner validation part; NaN without either.
    fit_seconds, predict_seconds : float
    fit_mib : float or None
        Memory that the fit held at most above what was there; None unless measured.
    model : estimator or None
    predicted : int ndarray of shape (n_tested,) or None
        Classes that `predict` says; None for the most probable ones.
    threshold_source : str
        Whose threshold it is, where `predict` decides at it; else empty.
    prior : str, dict, array or None
        Population that the probabilities of this package's classifiers refer to.
    shares : dict of label to float, or None
        Its class shares.
    n_validation : int ndarray of shape (n_classes,) or None
        Patients of each class in the inner validation part, if `threshold` was chosen there.
    teacher_weight : float or None
        Weight of the omics teacher that the fit has chosen; None where nothing was to be chosen.
    teacher_verdict : str
        Why; empty where nothing was to be chosen.
    teacher_report : DataFrame or None
        What the choice saw, with a column ``weight``; None where it saw nothing.
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
    fit_mib: float | None = None
    model: Any = None
    predicted: NDArray | None = None
    threshold_source: str = ""
    prior: Any = None
    n_validation: NDArray | None = None
    shares: dict[Any, float] | None = None
    teacher_weight: float | None = None
    teacher_verdict: str = ""
    teacher_report: pd.DataFrame | None = None

    @property
    def decided(self) -> NDArray:
        """Class numbers of the tested patients."""
        return self.proba.argmax(axis=1) if self.predicted is None else self.predicted


@dataclass(frozen=True)
class FailedFold:
    """A fold whose fit or prediction failed, with ``error_score=numpy.nan``.

    Attributes
    ----------
    repeat, fold : int
    trained, tested : int ndarray
        Patient numbers.
    error : Exception
    """

    repeat: int
    fold: int
    trained: NDArray
    tested: NDArray
    error: Exception

    def __str__(self) -> str:
        return (
            f"Fold {self.fold} (repeat {self.repeat}) failed, so its {len(self.tested)} test "
            f"patients have no prediction in it: {type(self.error).__name__}: {self.error}"
        )


@dataclass(frozen=True)
class PatientPredictions:
    """Predictions of one repeat, or of one model, sorted by patient.

    Attributes
    ----------
    patients, fold, y : int ndarray of shape (n_tested,)
    proba : ndarray of shape (n_tested, n_classes)
    threshold : ndarray of shape (n_tested,)
        Threshold of the patient's fold.
    n_bags : int ndarray of shape (n_tested,)
    predicted : int ndarray of shape (n_tested,)
        Classes that `predict` says; by default the most probable ones.
    own_threshold : bool ndarray of shape (n_tested,)
        Whether `predict` decides at the threshold of the patient's fold.
    """

    patients: NDArray
    fold: NDArray
    y: NDArray
    proba: NDArray
    threshold: NDArray
    n_bags: NDArray
    predicted: NDArray = None  # type: ignore[assignment]
    own_threshold: NDArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.predicted is None:
            object.__setattr__(self, "predicted", self.proba.argmax(axis=1))
        if self.own_threshold is None:
            object.__setattr__(self, "own_threshold", np.zeros(len(self.y), dtype=bool))

    @property
    def tuned(self) -> NDArray | None:
        """Classes predicted at the thresholds of the folds; None where a fold has none."""
        if np.isnan(self.threshold).any():
            return None
        reached = (self.proba[:, 1] >= self.threshold).astype(int)
        return np.where(self.own_threshold, self.predicted, reached)

    def take(self, rows: NDArray) -> PatientPredictions:
        """Some of the patients."""
        return PatientPredictions(*(getattr(self, f.name)[rows] for f in fields(self)))

    def of_folds(self) -> list[PatientPredictions]:
        """Predictions of each fold."""
        return [self.take(self.fold == fold) for fold in np.unique(self.fold)]

    def metrics(self, weights: NDArray) -> dict[str, NDArray]:
        """All metrics for weights (n_weights, n_all_patients), in the order of the tables."""
        weights = weights[:, self.patients]
        return patient_metrics(self.y, self.proba, weights, self.tuned, predicted=self.predicted)

    def auroc(self, weights: NDArray) -> NDArray:
        """AUROC of the pooled predictions."""
        return pooled_auroc(self.y, self.proba, weights[:, self.patients])

    def fold_auroc(self, weights: NDArray) -> NDArray:
        """Mean of the folds' AUROCs, over the folds that have one."""
        return nan_mean([fold.auroc(weights) for fold in self.of_folds()])


def pool_folds(folds: Iterable[FoldResult], labels: NDArray) -> list[PatientPredictions]:
    """Pool the predictions of each repeat; `folds` is sorted by repeat."""
    repeats = groupby(folds, key=lambda fold: fold.repeat)
    return [_pool(list(of_repeat), labels) for _, of_repeat in repeats]


def _pool(folds: Sequence[FoldResult], labels: NDArray) -> PatientPredictions:
    sizes = [len(f.tested) for f in folds]
    patients = np.concatenate([f.tested for f in folds])
    everyone = PatientPredictions(
        patients,
        np.repeat([f.fold for f in folds], sizes),
        labels[patients],
        np.concatenate([f.proba for f in folds]),
        np.repeat([f.threshold for f in folds], sizes),
        np.concatenate([f.n_bags for f in folds]),
        np.concatenate([f.decided for f in folds]),
        np.repeat([bool(f.threshold_source) for f in folds], sizes),
    )
    return everyone.take(np.argsort(patients))


def nan_mean(values: Sequence[NDArray]) -> NDArray:
    """Mean over the first axis without NaN; NaN only where all values are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return np.nanmean(np.asarray(values, dtype=float), axis=0)


def mean_auroc(repeats: Sequence[PatientPredictions], weights: NDArray) -> NDArray:
    """Pooled AUROC, mean over repeats."""
    return np.mean([r.auroc(weights) for r in repeats], axis=0)


def mean_fold_auroc(repeats: Sequence[PatientPredictions], weights: NDArray) -> NDArray:
    """AUROC within folds, mean over folds and repeats."""
    return np.mean([r.fold_auroc(weights) for r in repeats], axis=0)


def mean_metrics(repeats: Sequence[PatientPredictions], weights: NDArray) -> dict[str, NDArray]:
    """All metrics of the pooled predictions, mean over repeats."""
    each = [r.metrics(weights) for r in repeats]
    return {name: np.mean([metrics[name] for metrics in each], axis=0) for name in each[0]}


def auroc_components(
    repeats: Sequence[PatientPredictions], *, within_folds: bool
) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC of positives and of negatives, mean over repeats.

    Within folds, a patient is compared with the patients of the fold; those of a fold without the
    other class are left out.
    """
    n = 1 + max(int(repeat.patients.max()) for repeat in repeats)
    found = np.full((len(repeats), n), np.nan)
    label = np.zeros(n, dtype=int)
    for row, repeat in zip(found, repeats, strict=True):
        label[repeat.patients] = repeat.y
        for part in repeat.of_folds() if within_folds else [repeat]:
            positive = part.y == 1
            if positive.any() and not positive.all():
                above, below = placements(positive, part.proba[:, 1])
                row[part.patients[positive]], row[part.patients[~positive]] = above, below
    mean = nan_mean(list(found))
    return mean[label == 1], mean[label == 0]


def resampled_weights(
    study: Study, repeats: Sequence[PatientPredictions], bootstrap: Bootstrap
) -> dict[str, tuple[NDArray, NDArray]]:
    """Bootstrap weights for pooled metrics and for the AUROC within folds.

    The keys are the suffixes of the columns: none where patients are drawn, ``_sites`` where
    whole sites are. Patients are drawn within the test folds of the first repeat for the AUROC
    within folds, but not within fold and class: strata of a few patients would make the interval
    too narrow.
    """
    fold = np.full(len(study.names), -1)
    fold[repeats[0].patients] = repeats[0].fold
    weights = {"": (bootstrap.patients(len(fold)), bootstrap.within_folds(fold))}
    if study.sites is not None:
        sites = bootstrap.sites(study.sites)
        weights["_sites"] = (sites, sites)
    return weights
