"""`compare`: several estimators on the same folds, seeds and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ..data.omics import OmicsTable
from ..data.sequence import first_few
from .evaluate import run_plan
from .inference import holm
from .pairing import paired_difference
from .plan import Plan, make_plan
from .result import Bootstrap, Evaluation, collect
from .routing import takes
from .study import Study, as_study
from .tables import Tables


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
    repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
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
    cv, groups, repeats, random_state, pos_label, n_bootstrap, confidence, keep_models, n_jobs
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
    >>> from sk_momkd.evaluation.compare import compare
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
    bootstrap = Bootstrap(n_bootstrap, confidence, random_state)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, repeats, random_state)
    arms = {}
    for name, estimator in estimators.items():
        table = study.omics if takes(estimator, "omics") else None
        arms[name] = Arm(estimator, [table] * repeats)
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
