"""`compare`: several estimators on the same folds, seeds and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable
from ..messages import first_few
from .cross_validation import run_plan
from .results import (
    Bootstrap,
    Evaluation,
    OutOfFold,
    Tables,
    collect,
    fold_of_patient,
    mean_auroc,
    mean_fold_auroc,
)
from .routing import takes
from .statistics import delong_test, holm
from .study import Plan, Study, as_study, make_plan

_TIE = 1e-12  # AUROCs that differ by rounding alone


def paired_difference(
    study: Study,
    first: Sequence[OutOfFold],
    second: Sequence[OutOfFold],
    bootstrap: Bootstrap,
) -> dict[str, float]:
    """First minus second: AUROC pooled and within folds, intervals, DeLong's test, folds won.

    Parameters
    ----------
    study : Study
    first, second : list of OutOfFold
        By repeat, on the same folds.
    bootstrap : Bootstrap
        The same patients are drawn for both methods; within folds for the AUROC within folds.
        Whole sites are drawn for ``..._sites``.
    """
    n = len(study.names)
    once, patients = np.ones((1, n)), bootstrap.patients(n)
    within = bootstrap.within(fold_of_patient(study, second))
    kinds = {"": (patients, within)}
    if study.sites is not None:
        kinds["_sites"] = (bootstrap.sites(study.sites),) * 2
    row = {"auroc": float((mean_auroc(first, once) - mean_auroc(second, once))[0])}
    for kind, (weights, _) in kinds.items():
        drawn = mean_auroc(first, weights) - mean_auroc(second, weights)
        row[f"low{kind}"], row[f"high{kind}"] = bootstrap.interval(drawn)
    row["fold_auroc"] = float((mean_fold_auroc(first, once) - mean_fold_auroc(second, once))[0])
    for kind, (_, weights) in kinds.items():
        drawn = mean_fold_auroc(first, weights) - mean_fold_auroc(second, weights)
        row[f"fold_low{kind}"], row[f"fold_high{kind}"] = bootstrap.interval(drawn)
    return row | _delong(first, second) | _folds_won(first, second, once)


def _delong(first: Sequence[OutOfFold], second: Sequence[OutOfFold]) -> dict[str, float]:
    y, patients = second[0].y, second[0].patients
    same = all(np.array_equal(r.patients, patients) for r in (*first, *second))
    if not same or second[0].proba.shape[1] != 2 or np.bincount(y, minlength=2).min() < 2:
        return {"p_delong": np.nan, "correlation": np.nan}
    scores = [np.stack([r.proba[:, 1] for r in repeats]) for repeats in (first, second)]
    test = delong_test(y == 1, *scores)
    return {"p_delong": test.p_value, "correlation": test.correlation}


def _folds_won(
    first: Sequence[OutOfFold], second: Sequence[OutOfFold], once: NDArray
) -> dict[str, int]:
    gaps = np.array(
        [
            (mine.take(mine.fold == f).auroc(once) - other.take(other.fold == f).auroc(once))[0]
            for mine, other in zip(first, second, strict=True)
            for f in np.unique(mine.fold)
        ]
    )
    gaps = gaps[np.isfinite(gaps)]
    return {
        "wins": int((gaps > _TIE).sum()),
        "ties": int((np.abs(gaps) <= _TIE).sum()),
        "losses": int((gaps < -_TIE).sum()),
    }


@dataclass(frozen=True, repr=False)
class Comparison(Tables):
    """Results of several estimators on the same folds; see :func:`compare`.

    Attributes
    ----------
    summary : DataFrame, index method
        AUROC with interval, all other metrics, whether omics was used, mean seconds of a fit, and
        the most memory (MiB) that a fit held above what was there before it, median over fits.
    differences : DataFrame, index method
        Method minus reference: ``auroc`` (pooled) with ``low, high``, ``fold_auroc`` (mean within
        folds) with ``fold_low, fold_high``, with groups the same with ``_sites``; ``p_delong``,
        ``p_holm``, ``correlation`` of the two AUROCs, folds won, tied and lost.
    folds, predictions : DataFrame
        Those of the evaluations, with a column ``method``.
    reference : str
    evaluations : dict of Evaluation
    """

    summary: pd.DataFrame
    differences: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    reference: str
    evaluations: dict[str, Evaluation] = field(repr=False)

    _shown = ("summary", "differences")

    @property
    def headline(self) -> str:
        """Methods, patients and reference."""
        one = next(iter(self.evaluations.values())).headline.partition(": ")[2]
        return f"{len(self.evaluations)} methods, reference {self.reference!r}: {one}"


class Arm(NamedTuple):
    """A method of a comparison, with an omics table (or None) for each repeat."""

    estimator: Any
    omics: Sequence[OmicsTable | None]


def compare(
    estimators: Mapping[str, Any],
    bags: Any,
    y: Any,
    *,
    reference: str | None = None,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    keep_models: bool = False,
    n_jobs: int | None = None,
) -> Comparison:
    """Evaluate several estimators on identical folds and test their differences.

    Parameters
    ----------
    estimators : dict of str to classifier
    bags, y
        As in :func:`evaluate`.
    reference : str, optional
        The method that the others are compared with; by default the first.
    omics : AnnData, DataFrame or OmicsTable, optional
        Given to the methods whose `fit` takes it; the others learn from histology alone.
    cv, groups, n_repeats, random_state, pos_label, n_bootstrap, confidence_level, keep_models, \
n_jobs
        As in :func:`evaluate`.

    Returns
    -------
    Comparison

    Raises
    ------
    LeakageError, TypeError, ValueError
        As :func:`evaluate`; also if `reference` is no method.

    Notes
    -----
    Intervals and DeLong's test ask what other patients would have given the same fitted models:
    chance in training is not in them. ``p_holm`` corrects ``p_delong`` for the number of methods.
    Seconds are wall time of a fit, comparable with ``n_jobs=1`` alone. Memory is that of the
    process which runs the fit, looked at fifty times a second, without child processes and GPUs;
    the first fit of a process holds, too, what its libraries set up.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.comparison import compare
    >>> def mean_patch(bags):
    ...     return np.array([bag.load().features.mean(axis=0) for bag in bags])
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> bags = BagSequence(
    ...     Bag(random.normal(label, 1, size=(5, 3)), patient_id=f"P{i:02d}")
    ...     for i, label in enumerate(y)
    ... )
    >>> table = compare(
    ...     {
    ...         "guess": DummyClassifier(),
    ...         "lr": make_pipeline(FunctionTransformer(mean_patch), LogisticRegression()),
    ...     },
    ...     bags,
    ...     y,
    ... ).differences
    >>> table.index.to_list(), bool(table.loc["lr", "fold_low"] > 0)
    (['lr'], True)
    """
    if not estimators:
        raise ValueError("There is no estimator to compare.")
    reference = next(iter(estimators)) if reference is None else reference
    if reference not in estimators:
        raise ValueError(f"reference={reference!r} is none of {first_few(estimators)}.")
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, n_repeats, random_state)
    arms = {}
    for name, estimator in estimators.items():
        table = study.omics if takes(estimator, "omics") else None
        arms[name] = Arm(estimator, [table] * n_repeats)
    if omics is not None and not any(takes(e, "omics") for e in estimators.values()):
        raise TypeError(f"The fit of none of {first_few(estimators)} takes omics.")
    evaluations = evaluate_arms(
        study, arms, plan, bootstrap, n_jobs=n_jobs, keep_models=keep_models
    )
    pairs = {name: (name, reference) for name in evaluations if name != reference}
    return Comparison(
        _summary(evaluations, arms),
        difference_table(study, evaluations, pairs, bootstrap).rename_axis("method"),
        stacked(evaluations, "folds"),
        stacked(evaluations, "predictions"),
        reference,
        evaluations,
    )


def evaluate_arms(
    study: Study,
    arms: Mapping[str, Arm],
    plan: Plan,
    bootstrap: Bootstrap,
    *,
    n_jobs: int | None = None,
    keep_models: bool = False,
) -> dict[str, Evaluation]:
    """Evaluation of each arm on the same splits, seeds and draws."""
    return {
        name: collect(
            name,
            study,
            run_plan(
                study,
                arm.estimator,
                plan,
                omics=arm.omics,
                n_jobs=n_jobs,
                keep_models=keep_models,
                watch_memory=True,
            ),
            bootstrap,
        )
        for name, arm in arms.items()
    }


def difference_table(
    study: Study,
    evaluations: Mapping[str, Evaluation],
    pairs: Mapping[str, tuple[str, str]],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Row per pair: first minus second."""
    rows = {
        name: paired_difference(
            study, evaluations[first].repeats, evaluations[second].repeats, bootstrap
        )
        for name, (first, second) in pairs.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    if len(table):
        place = table.columns.tolist().index("p_delong") + 1
        table.insert(place, "p_holm", holm(table["p_delong"]))
    return table


def stacked(evaluations: Mapping[str, Evaluation], table: str) -> pd.DataFrame:
    """One table of all evaluations, with a column ``method``."""
    parts = {name: getattr(evaluation, table) for name, evaluation in evaluations.items()}
    return pd.concat(parts, names=["method"]).reset_index("method").reset_index(drop=True)


def _summary(evaluations: Mapping[str, Evaluation], arms: Mapping[str, Arm]) -> pd.DataFrame:
    rows = {}
    for name, evaluation in evaluations.items():
        of_metric = evaluation.summary
        row: dict[str, Any] = {"auroc": of_metric.loc["auroc", "value"]}
        row |= {"low": of_metric.loc["auroc", "low"], "high": of_metric.loc["auroc", "high"]}
        row |= {str(metric): v for metric, v in of_metric["value"].drop("auroc").items()}
        row["fold_std"] = of_metric.loc["fold_auroc", "fold_std"]
        row["omics"] = any(table is not None for table in arms[name].omics)
        row["fit_seconds"] = evaluation.folds["fit_seconds"].mean()
        row["fit_mib"] = evaluation.folds["fit_mib"].median()
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
