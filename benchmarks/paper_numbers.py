"""AUCs of the paper's methods, and their draws, from the rows of fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_momkd.evaluation.results import (
    FoldResult,
    PatientPredictions,
    mean_fold_auroc,
    nan_mean,
    pool_folds,
)
from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import Plan


class Results:
    """Predictions of all methods on one task, within folds or on the other cohort."""

    def __init__(self, task: Any, rows: pd.DataFrame, plans: Mapping[Any, Plan]) -> None:
        self.task, self.study = task, task.study
        self.rows = rows[rows["task"] == task.name]
        self.plans = {seed: plan for (name, seed), plan in plans.items() if name == task.name}
        self.auc = cache(self._auc)

    def seeds(self, method: str) -> tuple[int, ...]:
        """Seeds of which all folds are there."""
        done = self.rows[self.rows["method"] == method].groupby("seed")["fold"].nunique()
        return tuple(s for s, p in self.plans.items() if done.get(s, 0) == len(p.splits[0]))

    def fits(self, method: str, seeds: Sequence[int]) -> pd.DataFrame:
        """Rows of a method, seed by seed and fold by fold."""
        mine = self.rows[(self.rows["method"] == method) & self.rows["seed"].isin(seeds)]
        return mine.sort_values(["seed", "fold"])

    def repeats(self, method: str, seeds: tuple[int, ...]) -> list[PatientPredictions]:
        """Out-of-fold predictions of each seed."""
        outcomes = [
            self._outcome(seeds.index(fit.seed), fit)
            for fit in self.fits(method, seeds).itertuples()
        ]
        return pool_folds(outcomes, self.study.labels)

    def _outcome(self, repeat: int, fit: Any) -> FoldResult:
        train, test = self.plans[fit.seed].splits[0][fit.fold]
        positive = as_numbers(fit.p)
        return FoldResult(
            repeat,
            fit.fold,
            self.study.patients_at(train),
            self.study.patients_at(test),
            np.stack([1 - positive, positive], axis=1),
            np.unique(self.study.patient_of[test], return_counts=True)[1],
            float(fit.threshold),
            fit_seconds=fit.cpu_seconds,
            predict_seconds=np.nan,
        )

    def spread(self, method: str, seeds: tuple[int, ...]) -> float:
        """SD of the AUROC over seeds and folds."""
        once = np.ones((1, len(self.study.names)))
        found = [
            fold.auroc(once)[0] for part in self.repeats(method, seeds) for fold in part.of_folds()
        ]
        return float(pd.Series(found).std())

    def other_metrics(self, method: str, seeds: tuple[int, ...]) -> dict[str, float]:
        """Of the pooled predictions, mean over seeds."""
        once = np.ones((1, len(self.study.names)))
        scores = [part.metrics(once) for part in self.repeats(method, seeds)]
        names = {"auroc": "auc_pooled", "auprc": "auprc", "brier": "brier"}
        names["balanced_accuracy_tuned"] = "balanced_accuracy_tuned"
        return {new: float(np.mean([s[old][0] for s in scores])) for old, new in names.items()}

    def kinds(self) -> tuple[str, ...]:
        return ("auc",)

    def _auc(self, kind: str, method: str, seeds: tuple[int, ...], *, drawn: bool) -> NDArray:
        return mean_fold_auroc(self.repeats(method, seeds), self.weights(drawn=drawn))

    def weights(self, *, drawn: bool) -> NDArray:
        """Once each patient, or the draws that all tasks share."""
        return self.draws if drawn else np.ones((1, len(self.study.names)))

    draws: NDArray


class ExternalResults(Results):
    """Predictions of the fold models on patients from elsewhere: their mean, and the ensemble."""

    def __init__(self, task: Any, rows: pd.DataFrame, plans: Mapping[Any, Plan]) -> None:
        super().__init__(task, rows[rows["elsewhere"] == task.elsewhere], plans)
        self.study = task.external

    def kinds(self) -> tuple[str, ...]:
        return ("auc", "ensemble")

    def models(self, method: str, seeds: tuple[int, ...]) -> NDArray:
        """(n_seeds, n_folds, n_patients)"""
        found = [as_numbers(p) for p in self.fits(method, seeds)["p_external"]]
        return np.stack(found).reshape(len(seeds), -1, len(self.study.names))

    def _auc(self, kind: str, method: str, seeds: tuple[int, ...], *, drawn: bool) -> NDArray:
        models = self.models(method, seeds)
        models = models.mean(axis=1) if kind == "ensemble" else models.reshape(-1, models.shape[2])
        weights = self.weights(drawn=drawn)
        return nan_mean([self._single(p).auroc(weights) for p in models])

    def spread(self, method: str, seeds: tuple[int, ...]) -> float:
        once, models = self.weights(drawn=False), self.models(method, seeds)
        aucs = [self._single(p).auroc(once)[0] for p in models.reshape(-1, models.shape[2])]
        return float(pd.Series(aucs).std())

    def other_metrics(self, method: str, seeds: tuple[int, ...]) -> dict[str, float]:
        return {}

    def _single(self, positive: NDArray) -> PatientPredictions:
        n = len(self.study.names)
        proba, zeros = np.stack([1 - positive, positive], axis=1), np.zeros(n, dtype=int)
        n_bags = np.bincount(self.study.patient_of, minlength=n)
        nowhere = np.full(n, np.nan)
        return PatientPredictions(np.arange(n), zeros, self.study.labels, proba, nowhere, n_bags)


def as_numbers(text: str) -> NDArray:
    return np.array(text.split(), dtype=float)


def share_draws(results: Sequence[Results], bootstrap: Bootstrap) -> None:
    """The same patients for every task and method: a mean over tasks has an interval, too."""
    names = sorted({str(name) for r in results for name in r.study.names})
    place = {name: i for i, name in enumerate(names)}
    weights = bootstrap.patients(len(names))
    for r in results:
        r.draws = weights[:, [place[str(name)] for name in r.study.names]]
