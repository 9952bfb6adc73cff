"""The tables of an `Evaluation` from the predictions of its folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..messages import warn
from .fold_results import (
    FailedFold,
    FoldResult,
    PatientPredictions,
    mean_fold_auroc,
    mean_metrics,
    pool_folds,
    resampled_weights,
)
from .results import Evaluation
from .small_samples import small_sample_intervals
from .statistics import Bootstrap
from .study import Study
from .teacher_weights import joined_reports
from .thresholds import source_of

FEW_IN_VALIDATION = 10  # patients of a class; with fewer, a threshold is chance
_SITE_METRICS = ("auroc", "balanced_accuracy", "accuracy", "brier")


def build_evaluation(
    name: str, study: Study, results: Sequence[FoldResult | FailedFold], bootstrap: Bootstrap
) -> Evaluation:
    """Tables and metrics of the folds of one estimator."""
    folds = [fold for fold in results if isinstance(fold, FoldResult)]
    _warn_if_thresholds_rest_on_few(name, study.classes, folds)
    repeats = pool_folds(folds, study.labels)
    table = pd.DataFrame([_fold_row(study, fold, repeats) for fold in folds])
    if any(fold.fit_mib is not None for fold in folds):
        column = table.columns.tolist().index("predict_seconds") + 1
        table.insert(column, "fit_mib", [fold.fit_mib for fold in folds])
    if any(fold.teacher_weight is not None for fold in folds):
        table["teacher_weight"] = [fold.teacher_weight for fold in folds]
        table["teacher_verdict"] = [fold.teacher_verdict for fold in folds]
    trained = {int(i) for fold in folds for i in fold.trained}
    used = [bag for bag, i in zip(study.bags, study.patient_of, strict=True) if int(i) in trained]
    return Evaluation(
        name,
        _summary(study, repeats, table, bootstrap),
        table,
        pd.concat([_predictions(study, i, r) for i, r in enumerate(repeats)], ignore_index=True),
        None if study.sites is None else _site_table(study, study.sites, repeats),
        tuple(study.classes),
        bootstrap,
        tuple(fold.model for fold in folds if fold.model is not None),
        frozenset(study.names[i] for i in trained),
        tuple(repeats),
        folds[0].prior if len({repr(fold.prior) for fold in folds}) == 1 else None,
        _failed_table([fold for fold in results if isinstance(fold, FailedFold)]),
        study.label_names,
        sum(bag.patient_id is None and bag.bag_id is None for bag in used),
        _mean_shares(folds, study.classes),
        joined_reports(folds),
    )


def _mean_shares(folds: Sequence[FoldResult], classes: Sequence[Any]) -> dict[Any, float] | None:
    """Class shares of the prior, mean over the folds, where all have the same prior and classes."""
    shares = [fold.shares for fold in folds]
    if len({repr(fold.prior) for fold in folds}) > 1:
        return None
    if any(s is None or s.keys() != set(classes) for s in shares):
        return None
    return {c: float(np.mean([s[c] for s in shares if s is not None])) for c in classes}


def _failed_table(failed: Sequence[FailedFold]) -> pd.DataFrame | None:
    rows = [
        {
            "repeat": fold.repeat,
            "fold": fold.fold,
            "n_train": len(fold.trained),
            "n_test": len(fold.tested),
            "error": f"{type(fold.error).__name__}: {fold.error}",
        }
        for fold in failed
    ]
    return pd.DataFrame(rows) if rows else None


def _warn_if_thresholds_rest_on_few(
    name: str, classes: Sequence[Any], folds: Sequence[FoldResult]
) -> None:
    parts = [fold.n_validation for fold in folds if fold.n_validation is not None]
    if not parts:
        return
    counts = np.array(parts)
    fewest = int(counts.min())
    if fewest < FEW_IN_VALIDATION:
        rare = classes[int(counts.min(axis=0).argmin())]
        sizes = np.unique(counts.sum(axis=1))
        warn(
            f"{name}: the thresholds of the rows _tuned were chosen on inner validation parts of "
            f"{' to '.join(map(str, np.unique(sizes[[0, -1]])))} patients, {fewest} of {rare!r} in "
            "the smallest; with so few they are left to chance. predict does not use them. For a "
            "threshold that rests on all patients, see Evaluation.threshold.",
            UserWarning,
        )


def _fold_row(
    study: Study, fold: FoldResult, repeats: Sequence[PatientPredictions]
) -> dict[str, Any]:
    repeat = repeats[fold.repeat]
    tested = repeat.take(repeat.fold == fold.fold)
    metrics = tested.metrics(np.ones((1, len(study.names))))
    return {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "n_train": len(fold.trained),
        "n_test": len(fold.tested),
        **_class_counts(study, tested.y),
        "threshold": fold.threshold,
        "threshold_source": source_of(fold.threshold, fold.threshold_source),
        "fit_seconds": fold.fit_seconds,
        "predict_seconds": fold.predict_seconds,
        **{metric: value[0] for metric, value in metrics.items()},
    }


def _class_counts(study: Study, y: NDArray) -> dict[str, int]:
    counts = np.bincount(y, minlength=len(study.classes)).tolist()
    return {f"n_{c}": n for c, n in zip(study.classes, counts, strict=True)}


def _summary(
    study: Study,
    repeats: Sequence[PatientPredictions],
    folds: pd.DataFrame,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    once = np.ones((1, len(study.names)))
    by_repeat = [_scores([r], once, once) for r in repeats]
    drawn = {
        suffix: _scores(repeats, *weights)
        for suffix, weights in resampled_weights(study, repeats, bootstrap).items()
    }
    first = repeats[0]
    means = {metric: float(np.mean([s[metric] for s in by_repeat])) for metric in by_repeat[0]}
    corrected = small_sample_intervals(
        means if len(study.classes) == 2 else {},
        first.y,
        [fold.y for fold in first.of_folds()],
        bootstrap.confidence_level,
    )
    rows = {}
    for metric in by_repeat[0]:
        values = np.array([scores[metric][0] for scores in by_repeat])
        row = {"value": values.mean()}
        for suffix, scores in drawn.items():
            row[f"low{suffix}"], row[f"high{suffix}"] = bootstrap.interval(scores[metric])
        row["low"], row["high"] = corrected.get(metric, (row["low"], row["high"]))
        of_folds = folds["auroc" if metric == "fold_auroc" else metric].dropna()
        row |= {"fold_mean": of_folds.mean(), "fold_std": of_folds.std(), "n_folds": len(of_folds)}
        if len(values) > 1:
            row["repeat_std"] = values.std(ddof=1)
        rows[metric] = row
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"n_folds": int})
    return table.rename_axis("metric")


def _scores(
    repeats: Sequence[PatientPredictions], weights: NDArray, fold_weights: NDArray
) -> dict[str, NDArray]:
    """All metrics, mean over repeats, in the order of the summary."""
    scores = mean_metrics(repeats, weights)
    return {
        "auroc": scores.pop("auroc"),
        "fold_auroc": mean_fold_auroc(repeats, fold_weights),
        **scores,
    }


def _predictions(study: Study, repeat: int, part: PatientPredictions) -> pd.DataFrame:
    classes = np.array(study.classes, dtype=object)
    table = pd.DataFrame({"repeat": repeat, "fold": part.fold})
    table["patient_id"] = study.names[part.patients]
    if study.sites is not None:
        table["group"] = study.sites[part.patients]
    table["n_bags"] = part.n_bags
    table["y"] = pd.Series(classes[part.y]).infer_objects()
    for k, name in enumerate(study.classes):
        table[f"p_{name}"] = part.proba[:, k]
    table["predicted"] = pd.Series(classes[part.predicted]).infer_objects()
    table["threshold"] = part.threshold
    tuned = part.tuned
    table["predicted_tuned"] = (
        np.nan if tuned is None else pd.Series(classes[tuned]).infer_objects()
    )
    return table


def _site_table(
    study: Study, sites: NDArray, repeats: Sequence[PatientPredictions]
) -> pd.DataFrame:
    once, rows = np.ones((1, len(study.names))), {}
    for site in np.unique(sites):
        parts = [r.take(sites[r.patients] == site) for r in repeats]
        parts = [part for part in parts if len(part.y)]
        if not parts:
            continue
        metrics = mean_metrics(parts, once)
        rows[site] = {"n_patients": len(parts[0].y)} | _class_counts(study, parts[0].y)
        rows[site] |= {name: metrics[name][0] for name in _SITE_METRICS}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")
