"""The result of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .fitting import FoldOutcome
from .outoffold import OutOfFold, mean_fold_auroc, pooled
from .plan import draws
from .resampling import draw_units, draw_within, interval
from .study import Study
from .tables import Tables

_OF_A_SITE = ("auroc", "balanced_accuracy", "accuracy", "brier")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes
    ----------
    n_draws : int
    confidence : float
    random_state : int
    """

    n_draws: int
    confidence: float
    random_state: int

    def __post_init__(self) -> None:
        if self.n_draws < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                "n_bootstrap must be at least 1 and confidence between 0 and 1, got "
                f"{self.n_draws!r} and {self.confidence!r}."
            )

    def patients(self, n_patients: int) -> NDArray:
        """Draws of patients."""
        return draw_units(np.arange(n_patients), self.n_draws, draws(self.random_state))

    def sites(self, sites: NDArray) -> NDArray:
        """Draws of whole sites."""
        return draw_units(sites, self.n_draws, draws(self.random_state))

    def within(self, strata: NDArray) -> NDArray:
        """Draws of patients within strata."""
        return draw_within(strata, self.n_draws, draws(self.random_state))

    def interval(self, values: NDArray) -> tuple[float, float]:
        """Percentile interval of drawn values."""
        return interval(values, self.confidence)

    def __str__(self) -> str:
        return f"{self.confidence:.0%} of {self.n_draws:,} draws, seed {self.random_state}"


@dataclass(frozen=True, repr=False)
class Evaluation(Tables):
    """Out-of-fold results of one estimator; see :func:`evaluate`.

    Attributes
    ----------
    summary : DataFrame, index metric
        ``value`` of the pooled predictions, patient-bootstrap interval ``low, high``, with groups
        ``low_sites, high_sites`` (whole sites drawn), ``fold_mean, fold_std, n_folds``, and with
        repeats ``repeat_std``. Row ``fold_auroc`` is the mean AUROC within folds.
    folds : DataFrame
        One row per repeat and fold: patients, threshold, seconds, metrics.
    predictions : DataFrame
        One row per repeat and patient: ``y``, a column ``p_<class>`` for each class, ``predicted``,
        ``threshold``, ``predicted_tuned``.
    sites : DataFrame or None
        One row per group, metrics averaged over repeats; NaN where a site has one class.
    classes : tuple
        Of two classes, the last is the positive one.
    bootstrap : Bootstrap
        How the intervals were drawn: ``n_draws, confidence, random_state``.
    models : tuple of estimators
        Fitted on the folds, repeat by repeat; empty unless kept.
    trained_patients : frozenset
    repeats : tuple of OutOfFold
        The arrays behind `predictions`.
    """

    name: str
    summary: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    sites: pd.DataFrame | None
    classes: tuple[Any, ...]
    bootstrap: Bootstrap
    models: tuple[Any, ...]
    trained_patients: frozenset[Any] = field(repr=False)
    repeats: tuple[OutOfFold, ...] = field(repr=False)

    _shown = ("summary", "sites")

    @property
    def headline(self) -> str:
        """Estimator, patients, folds."""
        first = self.repeats[0]
        counts = np.bincount(first.y, minlength=len(self.classes))
        classes = ", ".join(f"{n} x {c!r}" for c, n in zip(self.classes, counts, strict=True))
        repeats = f" x {len(self.repeats)} repeats" if len(self.repeats) > 1 else ""
        sites = "" if self.sites is None else f", {len(self.sites)} groups"
        return (
            f"{self.name}: {len(first.y)} patients ({classes}){sites}, "
            f"{len(np.unique(first.fold))} folds{repeats}"
        )


def collect(
    name: str, study: Study, outcomes: Sequence[FoldOutcome], bootstrap: Bootstrap
) -> Evaluation:
    """Everything about the outcomes of one estimator."""
    repeats = pooled(outcomes, study.labels)
    folds = pd.DataFrame([_fold_row(study, o, repeats) for o in outcomes])
    trained = {study.names[i] for o in outcomes for i in o.trained}
    return Evaluation(
        name,
        _summary(study, repeats, folds, bootstrap),
        folds,
        pd.concat([_predictions(study, i, r) for i, r in enumerate(repeats)], ignore_index=True),
        None if study.sites is None else _site_table(study, study.sites, repeats),
        tuple(study.classes),
        bootstrap,
        tuple(o.model for o in outcomes if o.model is not None),
        frozenset(trained),
        tuple(repeats),
    )


def _fold_row(study: Study, outcome: FoldOutcome, repeats: Sequence[OutOfFold]) -> dict[str, Any]:
    repeat = repeats[outcome.repeat]
    part = repeat.take(repeat.fold == outcome.fold)
    metrics = part.scores(np.ones((1, len(study.names))))
    return {
        "repeat": outcome.repeat,
        "fold": outcome.fold,
        "n_train": len(outcome.trained),
        "n_test": len(outcome.tested),
        **_class_counts(study, part.y),
        "threshold": outcome.threshold,
        "fit_seconds": outcome.fit_seconds,
        "predict_seconds": outcome.predict_seconds,
        "fit_mib": outcome.fit_mib,
        **{metric: value[0] for metric, value in metrics.items()},
    }


def _class_counts(study: Study, y: NDArray) -> dict[str, int]:
    counts = np.bincount(y, minlength=len(study.classes)).tolist()
    return {f"n_{c}": n for c, n in zip(study.classes, counts, strict=True)}


def _summary(
    study: Study, repeats: Sequence[OutOfFold], folds: pd.DataFrame, bootstrap: Bootstrap
) -> pd.DataFrame:
    once, drawn = np.ones((1, len(study.names))), bootstrap.patients(len(study.names))
    kinds = {"": _scores(repeats, drawn)}
    within = bootstrap.within(fold_of_patient(study, repeats))
    kinds[""]["fold_auroc"] = mean_fold_auroc(repeats, within)
    if study.sites is not None:
        sites = bootstrap.sites(study.sites)
        kinds["_sites"] = _scores(repeats, sites)
        kinds["_sites"]["fold_auroc"] = mean_fold_auroc(repeats, sites)
    by_repeat = [r.scores(once) | {"fold_auroc": r.fold_auroc(once)} for r in repeats]
    rows = {}
    for metric in ["auroc", "fold_auroc", *list(by_repeat[0])[1:-1]]:
        values = np.array([scores[metric][0] for scores in by_repeat])
        row = {"value": values.mean()}
        for kind, scores in kinds.items():
            low, high = bootstrap.interval(scores[metric])
            row |= {f"low{kind}": low, f"high{kind}": high}
        of_folds = folds["auroc" if metric == "fold_auroc" else metric].dropna()
        row |= {"fold_mean": of_folds.mean(), "fold_std": of_folds.std(), "n_folds": len(of_folds)}
        if len(values) > 1:
            row["repeat_std"] = values.std(ddof=1)
        rows[metric] = row
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"n_folds": int})
    return table.rename_axis("metric")


def _scores(repeats: Sequence[OutOfFold], weights: NDArray) -> dict[str, NDArray]:
    each = [r.scores(weights) for r in repeats]
    return {name: np.mean([scores[name] for scores in each], axis=0) for name in each[0]}


def fold_of_patient(study: Study, repeats: Sequence[OutOfFold]) -> NDArray:
    """Test fold of each patient in the first repeat, within which patients are drawn.

    Not within fold and class: strata of a few patients would make the interval too narrow.
    """
    fold = np.full(len(study.names), -1)
    fold[repeats[0].patients] = repeats[0].fold
    return fold


def _predictions(study: Study, repeat: int, part: OutOfFold) -> pd.DataFrame:
    classes = np.array(study.classes, dtype=object)
    table = pd.DataFrame({"repeat": repeat, "fold": part.fold})
    table["patient_id"] = study.names[part.patients]
    if study.sites is not None:
        table["group"] = study.sites[part.patients]
    table["n_bags"] = part.n_bags
    table["y"] = pd.Series(classes[part.y]).infer_objects()
    for k, name in enumerate(study.classes):
        table[f"p_{name}"] = part.proba[:, k]
    table["predicted"] = pd.Series(classes[part.proba.argmax(axis=1)]).infer_objects()
    table["threshold"] = part.threshold
    tuned = part.tuned
    table["predicted_tuned"] = (
        np.nan if tuned is None else pd.Series(classes[tuned]).infer_objects()
    )
    return table


def _site_table(study: Study, sites: NDArray, repeats: Sequence[OutOfFold]) -> pd.DataFrame:
    once, rows = np.ones((1, len(study.names))), {}
    for site in np.unique(sites):
        parts = [r.take(sites[r.patients] == site) for r in repeats]
        parts = [part for part in parts if len(part.y)]
        if not parts:
            continue
        scores = _scores(parts, once)
        rows[site] = {"n_patients": len(parts[0].y)} | _class_counts(study, parts[0].y)
        rows[site] |= {name: scores[name][0] for name in _OF_A_SITE}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")
