"""Predictions of one repeat by patient, and what they are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from .fitting import FoldOutcome
from .ranking import auroc, one_against_rest
from .scores import metric_names, score, scorers


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of one repeat, sorted by patient.

    Attributes
    ----------
    patients, fold, y : int ndarray of shape (n_tested,)
    proba : ndarray of shape (n_tested, n_classes)
    threshold : ndarray of shape (n_tested,)
        Of the patient's fold.
    n_bags : int ndarray of shape (n_tested,)
    """

    patients: NDArray
    fold: NDArray
    y: NDArray
    proba: NDArray
    threshold: NDArray
    n_bags: NDArray

    @property
    def tuned(self) -> NDArray | None:
        """Classes decided at the folds' own thresholds; None where a fold has none."""
        if np.isnan(self.threshold).any():
            return None
        return (self.proba[:, 1] >= self.threshold).astype(int)

    def take(self, rows: NDArray) -> OutOfFold:
        """Some of the patients."""
        return OutOfFold(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def scores(self, weights: NDArray) -> dict[str, NDArray]:
        """All metrics for weights (n_weights, n_all_patients), in the order of the tables."""
        mine = weights[:, self.patients]
        found = {k: score(f, mine) for k, f in scorers(self.y, self.proba, self.tuned).items()}
        absent = np.full(len(weights), np.nan)
        return {name: found.get(name, absent) for name in metric_names(self.proba.shape[1])}

    def auroc(self, weights: NDArray) -> NDArray:
        """AUROC of the pooled predictions."""
        mine = weights[:, self.patients]
        return score(lambda w: one_against_rest(auroc, self.y, self.proba, w), mine)

    def fold_auroc(self, weights: NDArray) -> NDArray:
        """Mean of the folds' AUROCs, over the folds that have one."""
        folds = [self.take(self.fold == f).auroc(weights) for f in np.unique(self.fold)]
        return mean_of_known(folds)


def pooled(outcomes: Iterable[FoldOutcome], labels: NDArray) -> list[OutOfFold]:
    """The predictions of each repeat; outcomes come repeat by repeat."""
    repeats = groupby(outcomes, key=lambda outcome: outcome.repeat)
    return [_pool(list(folds), labels) for _, folds in repeats]


def _pool(folds: Sequence[FoldOutcome], labels: NDArray) -> OutOfFold:
    sizes = [len(f.tested) for f in folds]
    patients = np.concatenate([f.tested for f in folds])
    everyone = OutOfFold(
        patients,
        np.repeat([f.fold for f in folds], sizes),
        labels[patients],
        np.concatenate([f.proba for f in folds]),
        np.repeat([f.threshold for f in folds], sizes),
        np.concatenate([f.n_bags for f in folds]),
    )
    return everyone.take(np.argsort(patients))


def mean_of_known(values: Sequence[NDArray]) -> NDArray:
    """Mean over the first axis, NaN only where all are."""
    table = np.asarray(values, dtype=float)
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mean_auroc(repeats: Sequence[OutOfFold], weights: NDArray) -> NDArray:
    """Pooled AUROC, mean over repeats."""
    return np.mean([r.auroc(weights) for r in repeats], axis=0)


def mean_fold_auroc(repeats: Sequence[OutOfFold], weights: NDArray) -> NDArray:
    """Within-fold AUROC, mean over folds and repeats."""
    return np.mean([r.fold_auroc(weights) for r in repeats], axis=0)
