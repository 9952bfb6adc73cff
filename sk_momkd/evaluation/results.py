"""Results of an evaluation: predictions out of fold, scores with intervals, tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .metrics import auroc, metric_names, one_against_rest, score, scorers
from .statistics import draw_units, draw_within, interval
from .study import Study, draws


class Tables:
    """Base of the frozen results: a headline and tables.

    A field that is a DataFrame is written by :meth:`to_csv` under the field's name.
    """

    _shown: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was done, and on how many patients."""
        return type(self).__name__

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in own.items() if isinstance(v, pd.DataFrame)}

    def to_csv(self, folder: str | PathLike) -> list[Path]:
        """Write each table, and the text of the result, into `folder`.

        Parameters
        ----------
        folder : path
            Made where it does not exist.

        Returns
        -------
        list of Path
            One ``<table>.csv`` for each table, and ``result.txt``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, table in self.tables().items():
            written.append(folder / f"{name}.csv")
            table.to_csv(written[-1], index=table.index.name is not None)
        written.append(folder / "result.txt")
        written[-1].write_text(f"{self}\n", encoding="utf-8")
        return written

    def __str__(self) -> str:
        tables = self.tables()
        parts = [_as_text(tables[name]) for name in self._shown if name in tables]
        return "\n\n".join([self.headline, *parts])

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def _repr_html_(self) -> str:
        tables = self.tables()
        parts = [_as_html(tables[name]) for name in self._shown if name in tables]
        return "".join([f"<p>{html.escape(self.headline)}</p>", *parts])


def _as_html(table: pd.DataFrame) -> str:
    return _known(table).to_html(float_format="{:.3f}".format, na_rep="")


def _as_text(table: pd.DataFrame) -> str:
    named = table.index.name is not None
    return _known(table).to_string(float_format="{:.3f}".format, na_rep="", index=named)


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Without the metrics that have no value, such as those at thresholds nobody tuned."""
    if "value" in table:
        table = table.dropna(subset="value")
    return table.dropna(how="all").dropna(how="all", axis="columns")


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


_OF_A_SITE = ("auroc", "balanced_accuracy", "accuracy", "brier")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes
    ----------
    n_draws : int
    confidence_level : float
    random_state : int
    """

    n_draws: int
    confidence_level: float
    random_state: int

    def __post_init__(self) -> None:
        if self.n_draws < 1 or not 0 < self.confidence_level < 1:
            raise ValueError(
                "n_bootstrap must be at least 1 and confidence_level between 0 and 1, got "
                f"{self.n_draws!r} and {self.confidence_level!r}."
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
        return interval(values, self.confidence_level)

    def __str__(self) -> str:
        return f"{self.confidence_level:.0%} of {self.n_draws:,} draws, seed {self.random_state}"


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
        How the intervals were drawn: ``n_draws, confidence_level, random_state``.
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
