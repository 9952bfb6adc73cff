"""`compare`: several estimators on the same folds, seeds and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable
from ..estimators.inner_pos_labels import agreed_pos_label
from ..messages import first_few
from .evaluation_tables import build_evaluation
from .fold_results import (
    PatientPredictions,
    auroc_components,
    mean_auroc,
    mean_fold_auroc,
    resampled_weights,
)
from .result_tables import TableResult
from .results import Evaluation
from .routing import accepts
from .small_samples import is_small, small_sample_note, student_quantile
from .statistics import Bootstrap, delong_test, holm
from .study import Plan, Study, as_study, make_plan
from .study_fits import PlannedFits, run_fits
from .teacher_weights import counted_weights
from .thresholds import labels_of_patients, threshold_note

_TOLERANCE = 1e-12  # AUROCs that differ by rounding alone are a tie


@dataclass(frozen=True, repr=False)
class Comparison(TableResult):
    """Results of several estimators on the same folds, made by :func:`compare`.

    Attributes
    ----------
    summary : DataFrame, index method
        Columns ``auroc`` with interval ``low``, ``high``, all other metrics, ``fold_std`` (of the
        AUROC within folds), ``omics`` (whether it was used), ``fit_seconds`` (mean of a fit), and
        ``fit_mib`` (median over fits) if memory was measured. Where the fits of a method chose the
        weight of an omics teacher, ``teacher_weight`` says in how many folds which one.
    differences : DataFrame, index method
        Method minus reference. Columns ``auroc`` (pooled) with interval ``low``, ``high``,
        ``fold_auroc`` (mean within folds) with ``fold_low``, ``fold_high``, with groups the same
        intervals with the suffix ``_sites`` (whole sites drawn); ``p_delong`` (test of ``auroc``),
        ``p_holm`` (corrected for the number of methods), ``correlation`` of the two AUROCs, and
        the numbers of folds ``wins``, ``ties``, ``losses``.
    folds, predictions : DataFrame
        Those of the evaluations, with a first column ``method``.
    reference : str
        Method that the others are compared with.
    evaluations : dict of str to Evaluation

    See Also
    --------
    compare : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, compare
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> methods = {"prior": DummyClassifier(), "uniform": DummyClassifier(strategy="uniform")}
    >>> result = compare(methods, bags, np.arange(20) % 2, n_bootstrap=100)
    >>> result.differences.loc["uniform", ["auroc", "ties"]].tolist()
    [0.0, 5.0]
    """

    summary: pd.DataFrame
    differences: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    reference: str
    evaluations: dict[str, Evaluation] = field(repr=False)

    _displayed = ("summary", "differences")

    @property
    def note(self) -> str:
        """Folds that failed, and how to read intervals of few patients; empty where all is well."""
        return joint_note(self.evaluations)

    @property
    def headline(self) -> str:
        """Methods, reference, patients and positive class."""
        one = next(iter(self.evaluations.values())).headline.partition(": ")[2]
        return f"{len(self.evaluations)} methods, reference {self.reference!r}: {one}"


def compare(
    estimators: Mapping[str, Any],
    bags: Any,
    y: Any,
    *,
    reference: str | None = None,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    keep_models: bool = False,
    measure_memory: bool = False,
    error_score: Any = np.nan,
    store: Any = None,
    n_jobs: int | None = None,
    verbose: bool | None = None,
) -> Comparison:
    """Evaluate several estimators on identical folds and test their differences.

    Parameters
    ----------
    estimators : dict of str to classifier
        Each has ``predict_proba``, as in :func:`evaluate`.
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics, as in :func:`evaluate`.
    y : array-like of shape (n_bags,)
    reference : str, optional
        The method that the others are compared with; by default the first.
    omics : AnnData, DataFrame or OmicsTable, optional
        Passed to the methods whose `fit` takes it; the others learn from histology alone.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. Folds and inner validation parts keep them whole.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit`, as in :func:`evaluate`; the `fit` of each method takes them.
    n_repeats : int, default=1
        Each repeat has other seeds of the estimator, and other folds unless `cv` is a list.
    random_state : int, default=0
        Source of all seeds.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimators, else the one that sorts
        last. Each `pos_label` inside the estimators that is None is set to it.
    n_bootstrap : int, default=2000
        Number of bootstrap samples.
    confidence_level : float, default=0.95
        Confidence level of the intervals.
    keep_models : bool, default=False
        Keep the fitted models in the evaluations.
    measure_memory : bool, default=False
        Measure the most memory that each fit holds, as in :func:`evaluate`.
    error_score : numpy.nan or "raise", default=numpy.nan
        What a fold does whose fit or prediction fails, as in :func:`evaluate`.
    store : path or StudyStore, optional
        Folder in which each fit is kept as it ends, so that the same call goes on after the process
        died, and several processes or machines can share the fits: see :class:`StudyStore`.
    n_jobs : int, optional
        Number of folds that joblib fits at the same time. Results do not depend on it where a
        training step has up to 2^18 values (patches times features), which takes one thread. A
        larger one takes those of the process, of which workers have fewer: a probability may then
        differ in the seventh digit, unless ``OMP_NUM_THREADS`` is set.
    verbose : bool, optional
        Show a progress bar over all fits, with the time left, on standard error. By default it is
        shown where that is a terminal.

    Returns
    -------
    Comparison

    Raises
    ------
    LeakageError, TypeError, ValueError
        As :func:`evaluate`; also if `reference` is no method.

    See Also
    --------
    evaluate : One estimator.
    compare_omics : One estimator with and without omics.

    Notes
    -----
    Intervals and DeLong's test answer what other patients would have given the same fitted models;
    they do not contain the randomness of training. Seconds are wall time of a fit; they are
    comparable with ``n_jobs=1`` only. Memory is that of the process which runs the fit, read fifty
    times a second, without child processes and GPUs. The first fit of a process also holds what
    its libraries set up.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, BagSequence, compare
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> bags = BagSequence(
    ...     Bag(random.normal(label, 1, size=(5, 3)), patient_id=f"P{i:02d}")
    ...     for i, label in enumerate(y)
    ... )
    >>> pooled = make_pipeline(BagPooling(), LogisticRegression())
    >>> table = compare({"prior": DummyClassifier(), "lr": pooled}, bags, y).differences
    >>> table.index.to_list(), bool(table.loc["lr", "fold_low"] > 0)
    (['lr'], True)
    """
    if not isinstance(estimators, Mapping):
        raise TypeError(
            f"estimators is a {type(estimators).__name__}, expected a dict of classifiers by name, "
            'e.g. {"MoMKD": MoMKDClassifier(), "ABMIL": ABMILClassifier()}.'
        )
    if not estimators:
        raise ValueError("There is no estimator to compare.")
    reference = next(iter(estimators)) if reference is None else reference
    if reference not in estimators:
        raise ValueError(f"reference={reference!r} is none of {first_few(estimators)}.")
    if omics is not None and not any(accepts(e, "omics") for e in estimators.values()):
        raise TypeError(f"The fit of none of {first_few(estimators)} takes omics.")
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    pos_label = agreed_pos_label(estimators.values(), pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    plan = make_plan(study, cv, n_repeats, random_state)
    methods = {
        name: Method(estimator, [study.omics if accepts(estimator, "omics") else None] * n_repeats)
        for name, estimator in estimators.items()
    }
    evaluations = evaluate_methods(
        study,
        methods,
        plan,
        bootstrap,
        call="compare",
        verbose=verbose,
        store=store,
        n_jobs=n_jobs,
        keep_models=keep_models,
        measure_memory=measure_memory,
        error_score=error_score,
    )
    pairs = {name: (name, reference) for name in evaluations if name != reference}
    return Comparison(
        _summary(evaluations, methods),
        difference_table(study, evaluations, pairs, bootstrap).rename_axis("method"),
        stack_tables(evaluations, "folds"),
        stack_tables(evaluations, "predictions"),
        reference,
        evaluations,
    )


def joint_note(evaluations: Mapping[str, Evaluation]) -> str:
    """Folds that failed and thresholds of each evaluation, then how to read few patients."""
    failures = [e.failures for e in evaluations.values() if e.failures]
    if failures:
        failures.append("Differences are over the folds that neither of the two failed.")
    noted = {name: threshold_note(e.folds) for name, e in evaluations.items()}
    thresholds = [f"{name}: {note}" for name, note in noted.items() if note]
    one = next(iter(evaluations.values()))
    few = small_sample_note(one.classes, labels_of_patients(one.repeats))
    return " ".join([*failures, *thresholds, few]).strip()


def in_both(
    first: Sequence[PatientPredictions], second: Sequence[PatientPredictions]
) -> tuple[list[PatientPredictions], list[PatientPredictions]]:
    """Both predictions of the patients, repeat by repeat, that both have.

    Raises
    ------
    ValueError
        If there are none.
    """
    pairs = []
    for one, two in zip(first, second, strict=True):
        of_one, of_two = np.isin(one.patients, two.patients), np.isin(two.patients, one.patients)
        if of_one.any():
            pairs.append((one.take(of_one), two.take(of_two)))
    if not pairs:
        raise ValueError(
            "Two methods cannot be compared: in each fold, one of them failed. Fix what the "
            'warnings name, or find the first error with error_score="raise".'
        )
    return [one for one, _ in pairs], [two for _, two in pairs]


class Method(NamedTuple):
    """An estimator of a comparison, with an omics table (or None) for each repeat."""

    estimator: Any
    omics: Sequence[OmicsTable | None]


def evaluate_methods(
    study: Study,
    methods: Mapping[str, Method],
    plan: Plan,
    bootstrap: Bootstrap,
    **options: Any,
) -> dict[str, Evaluation]:
    """Evaluate each method on the same splits, seeds and bootstrap samples.

    The `options` are those of `run_fits`.
    """
    planned = [
        PlannedFits(name, study, estimator, plan, omics, f"This was method {name!r}.")
        for name, (estimator, omics) in methods.items()
    ]
    results = run_fits(planned, **options)
    return {
        name: build_evaluation(name, study, folds, bootstrap)
        for name, folds in zip(methods, results, strict=True)
    }


def difference_table(
    study: Study,
    evaluations: Mapping[str, Evaluation],
    pairs: Mapping[str, tuple[str, str]],
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """One row per pair: first minus second."""
    rows = {
        name: paired_difference(
            study, evaluations[first].repeats, evaluations[second].repeats, bootstrap
        )
        for name, (first, second) in pairs.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    if len(table):
        column = table.columns.tolist().index("p_delong") + 1
        table.insert(column, "p_holm", holm(table["p_delong"]))
    return table


def paired_difference(
    study: Study,
    first: Sequence[PatientPredictions],
    second: Sequence[PatientPredictions],
    bootstrap: Bootstrap,
) -> dict[str, float]:
    """First minus second: AUROC pooled and within folds, intervals, DeLong's test, folds won.

    Parameters
    ----------
    study : Study
    first, second : list of PatientPredictions
        By repeat, on the same folds.
    bootstrap : Bootstrap
        The same patients are drawn for both methods.
    """
    first, second = in_both(first, second)
    once, row = np.ones((1, len(study.names))), {}
    drawn = resampled_weights(study, second, bootstrap)
    for position, (prefix, mean) in enumerate((("", mean_auroc), ("fold_", mean_fold_auroc))):
        row[f"{prefix}auroc"] = float((mean(first, once) - mean(second, once))[0])
        for suffix, weights in drawn.items():
            values = mean(first, weights[position]) - mean(second, weights[position])
            low, high = bootstrap.interval(values)
            row |= {f"{prefix}low{suffix}": low, f"{prefix}high{suffix}": high}
        if second[0].proba.shape[1] == 2 and is_small(np.bincount(second[0].y, minlength=2)):
            half = half_width(
                first,
                second,
                within_folds=bool(position),
                confidence_level=bootstrap.confidence_level,
            )
            row[f"{prefix}low"] = row[f"{prefix}auroc"] - half
            row[f"{prefix}high"] = row[f"{prefix}auroc"] + half
    return row | _delong_columns(first, second) | _fold_counts(first, second, once)


def half_width(
    first: Sequence[PatientPredictions],
    second: Sequence[PatientPredictions],
    *,
    within_folds: bool,
    confidence_level: float,
) -> float:
    """Half of the width of Student's interval of a difference of AUROCs of few patients."""
    sides = zip(
        auroc_components(first, within_folds=within_folds),
        auroc_components(second, within_folds=within_folds),
        strict=True,
    )
    gaps = [(one - other)[np.isfinite(one - other)] for one, other in sides]
    counts = [len(gap) for gap in gaps]
    if min(counts) < 2:
        return np.nan
    error = float(np.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps)))
    if error < _TOLERANCE and abs(gaps[0].mean()) > _TOLERANCE:
        return np.nan  # all patients differ by the same: nothing is known of the spread
    return error * student_quantile(counts, confidence_level)


def _delong_columns(
    first: Sequence[PatientPredictions], second: Sequence[PatientPredictions]
) -> dict[str, float]:
    y, patients = second[0].y, second[0].patients
    same = all(np.array_equal(r.patients, patients) for r in (*first, *second))
    if not same or second[0].proba.shape[1] != 2 or np.bincount(y, minlength=2).min() < 2:
        return {"p_delong": np.nan, "correlation": np.nan}
    scores = [np.stack([r.proba[:, 1] for r in repeats]) for repeats in (first, second)]
    test = delong_test(y == 1, *scores)
    return {"p_delong": test.p_value, "correlation": test.correlation}


def _fold_counts(
    first: Sequence[PatientPredictions], second: Sequence[PatientPredictions], once: NDArray
) -> dict[str, int]:
    differences = np.array(
        [
            (mine.auroc(once) - other.auroc(once))[0]
            for one, two in zip(first, second, strict=True)
            for mine, other in zip(one.of_folds(), two.of_folds(), strict=True)
        ]
    )
    differences = differences[np.isfinite(differences)]
    return {
        "wins": int((differences > _TOLERANCE).sum()),
        "ties": int((np.abs(differences) <= _TOLERANCE).sum()),
        "losses": int((differences < -_TOLERANCE).sum()),
    }


def stack_tables(evaluations: Mapping[str, Evaluation], table: str) -> pd.DataFrame:
    """One table of all evaluations, with a column ``method``."""
    parts = {name: getattr(evaluation, table) for name, evaluation in evaluations.items()}
    return pd.concat(parts, names=["method"]).reset_index("method").reset_index(drop=True)


def _summary(evaluations: Mapping[str, Evaluation], methods: Mapping[str, Method]) -> pd.DataFrame:
    rows = {}
    for name, evaluation in evaluations.items():
        metrics, auroc = evaluation.summary, evaluation.summary.loc["auroc"]
        row = {"auroc": auroc["value"], "low": auroc["low"], "high": auroc["high"]}
        row |= {str(metric): v for metric, v in metrics["value"].drop("auroc").items()}
        row["fold_std"] = metrics.loc["fold_auroc", "fold_std"]
        row["omics"] = any(table is not None for table in methods[name].omics)
        row["fit_seconds"] = evaluation.folds["fit_seconds"].mean()
        if "fit_mib" in evaluation.folds:
            row["fit_mib"] = evaluation.folds["fit_mib"].median()
        if counted := counted_weights(evaluation.folds):
            row["teacher_weight"] = counted
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
