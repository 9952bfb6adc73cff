"""AUCs of the paper's methods, and their draws, from the rows of fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_momkd.evaluation.evaluation_tables import build_evaluation
from sk_momkd.evaluation.fold_results import (
    FoldResult,
    PatientPredictions,
    mean_fold_auroc,
    nan_mean,
    pool_folds,
)
from sk_momkd.evaluation.results import Evaluation
from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import Plan

DECISIONS = {
    "accuracy": "acc",
    "f1_macro": "f1",
    "accuracy_tuned": "acc_tuned",
    "f1_macro_tuned": "f1_tuned",
}


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
        return pool_folds(self._outcomes(method, seeds), self.study.labels)

    def evaluation(self, method: str, seeds: tuple[int, ...]) -> Evaluation:
        """What `evaluate` returns, with a repeat per seed; its intervals are not used."""
        bootstrap = Bootstrap(2, 0.95, 0)
        return build_evaluation(method, self.study, self._outcomes(method, seeds), bootstrap)

    def _outcomes(self, method: str, seeds: tuple[int, ...]) -> list[FoldResult]:
        return [
            self._outcome(seeds.index(fit.seed), fit)
            for fit in self.fits(method, seeds).itertuples()
        ]

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
        found = [fold.auroc(once)[0] for fold in self.tested(method, seeds)]
        return float(pd.Series(found).std())

    def tested(self, method: str, seeds: tuple[int, ...]) -> list[PatientPredictions]:
        """What each model predicts of the patients that it is tested on."""
        return [fold for part in self.repeats(method, seeds) for fold in part.of_folds()]

    def decisions(self, method: str, seeds: tuple[int, ...]) -> dict[str, float]:
        """ACC and macro F1 of the models, mean and SD, at argmax and at their own thresholds."""
        once = np.ones((1, len(self.study.names)))
        scores = [part.metrics(once) for part in self.tested(method, seeds)]
        found = {}
        for metric, name in DECISIONS.items():
            values = pd.Series([s[metric][0] for s in scores])
            found |= {name: values.mean(skipna=False), f"{name}_sd": values.std(skipna=False)}
        return found

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

    def tested(self, method: str, seeds: tuple[int, ...]) -> list[PatientPredictions]:
        fits = self.fits(method, seeds)
        return [
            self._single(as_numbers(p), threshold)
            for p, threshold in zip(fits["p_external"], fits["threshold"], strict=True)
        ]

    def other_metrics(self, method: str, seeds: tuple[int, ...]) -> dict[str, float]:
        return {}

    def _single(self, positive: NDArray, threshold: float = np.nan) -> PatientPredictions:
        n = len(self.study.names)
        proba, zeros = np.stack([1 - positive, positive], axis=1), np.zeros(n, dtype=int)
        n_bags = np.bincount(self.study.patient_of, minlength=n)
        everywhere = np.full(n, float(threshold))
        return PatientPredictions(np.arange(n), zeros, self.study.labels, proba, everywhere, n_bags)


def as_numbers(text: str) -> NDArray:
    return np.array(text.split(), dtype=float)


def share_draws(results: Sequence[Results], bootstrap: Bootstrap) -> None:
    """The same patients for every task and method: a mean over tasks has an interval, too."""
    names = sorted({str(name) for r in results for name in r.study.names})
    place = {name: i for i, name in enumerate(names)}
    weights = bootstrap.patients(len(names))
    for r in results:
        r.draws = weights[:, [place[str(name)] for name in r.study.names]]
