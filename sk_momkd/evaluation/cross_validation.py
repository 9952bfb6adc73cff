"""`evaluate`: out-of-fold numbers of one estimator, by patient, with intervals."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone

from ..data.omics import OmicsTable
from ..data.sequence import BagSequence
from ..messages import first_few
from .metrics import best_threshold
from .peak_memory import PeakMemory
from .results import Bootstrap, Evaluation, FoldOutcome, collect
from .routing import final_step, fit_arguments, require_omics, set_seeds, warn_of_torn_patients
from .study import Plan, Split, Study, as_study, make_plan


class _Task(NamedTuple):
    repeat: int
    fold: int
    split: Split
    seed: int
    omics: OmicsTable | None


def run(
    study: Study,
    estimator: Any,
    plan: Plan,
    *,
    omics: Sequence[OmicsTable | None],
    n_jobs: int | None = None,
    keep_models: bool = False,
    watch_memory: bool = False,
) -> list[FoldOutcome]:
    """Outcomes of all folds of all repeats; `omics` has a table (or None) for each repeat."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, which evaluation needs. Use a "
            "classifier with probabilities, e.g. inside CalibratedClassifierCV."
        )
    warn_of_torn_patients(estimator, len(study.bags), len(study.names))
    tasks = [
        _Task(repeat, fold, split, plan.seeds[repeat][fold], omics[repeat])
        for repeat, folds in enumerate(plan.splits)
        for fold, split in enumerate(folds)
    ]
    outcomes = Parallel(n_jobs=n_jobs)(
        delayed(_run_fold)(
            study, estimator, task, keep_model=keep_models, watch_memory=watch_memory
        )
        for task in tasks
    )
    return list(outcomes)


def _run_fold(
    study: Study, estimator: Any, task: _Task, *, keep_model: bool, watch_memory: bool
) -> FoldOutcome:
    train, test = task.split
    model = set_seeds(clone(estimator), task.seed)
    groups = None if study.groups is None else study.groups[train]
    arguments = fit_arguments(model, task.omics, groups, study.patient_of[train])
    peak = PeakMemory()
    with (
        peak if watch_memory else nullcontext(),
        config_context(enable_metadata_routing=False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        start = time.perf_counter()
        model.fit(study.bags[train], study.y[train], **arguments)
        fit_seconds = time.perf_counter() - start
    fitted = time.perf_counter()
    proba = bag_probabilities(model, study.bags[test], study.classes)
    predicted = time.perf_counter()
    return FoldOutcome(
        task.repeat,
        task.fold,
        study.patients(train),
        study.patients(test),
        study.mean_over_bags(test, proba),
        np.unique(study.patient_of[test], return_counts=True)[1],
        tuned_threshold(model, study.classes),
        fit_seconds,
        predicted - fitted,
        peak.mib,
        model if keep_model else None,
    )


def bag_probabilities(model: Any, bags: BagSequence, classes: list[Any]) -> NDArray:
    """Probabilities in the order of `classes`; 0 for a class that training did not have.

    Raises
    ------
    ValueError
        If a value is not finite, or the model knows a class that is none of `classes`.
    """
    proba = np.asarray(model.predict_proba(bags), dtype=float)
    bad = np.flatnonzero(~np.isfinite(proba).all(axis=1))
    if len(bad):
        raise ValueError(f"The prediction of {bags.name(bad[0])} is not finite: {proba[bad[0]]}.")
    return _in_order(proba, list(np.asarray(model.classes_).tolist()), classes)


def _in_order(proba: NDArray, known: list[Any], classes: list[Any]) -> NDArray:
    foreign = [c for c in known if c not in classes]
    if foreign:
        raise ValueError(f"The model knows the classes {known}, but y has {classes}.")
    ordered = np.zeros((len(proba), len(classes)))
    ordered[:, [classes.index(c) for c in known]] = proba
    return ordered


def tuned_threshold(model: Any, classes: list[Any]) -> float:
    """Threshold with the best F1 on the patients of the model's inner validation part.

    NaN where the model has none (attribute ``validation_``), and for more than two classes.
    """
    last = final_step(model)
    table = getattr(last, "validation_", None)
    if table is None or len(classes) != 2 or len(getattr(last, "classes_", ())) != 2:
        return np.nan
    columns = [c for c in table.columns if str(c).startswith("p_")]
    known = np.asarray(last.classes_).tolist()
    positive = table[columns[known.index(classes[1])]]
    unknown = pd.Series([f"row {i}" for i in range(len(table))], index=table.index)
    bag = table["bag_id"].where(table["bag_id"].notna(), unknown)
    owner = table["patient_id"].where(table["patient_id"].notna(), bag).astype(str)
    by_patient = pd.DataFrame({"p": positive, "y": table["y"] == classes[1]}).groupby(owner).mean()
    return best_threshold((by_patient["y"] > 0.5).to_numpy(), by_patient["p"].to_numpy())


def evaluate(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
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
) -> Evaluation:
    """Cross-validate by patient and say how far the numbers can be trusted.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        One of this package, a pipeline or a search around one, or any scikit-learn pipeline that
        takes bags. It is cloned, and each of its ``random_state`` is set.
    bags : BagSequence or whatever `as_bags` reads
        The patient is the unit of all numbers: its probability is the mean over its bags, its
        label that of most of them. A bag without patient id is its own patient.
    y : array-like of shape (n_bags,)
    omics : AnnData, DataFrame with ids as index, or OmicsTable, optional
        Joined by id; seen by `fit` alone.
    cv : int, splitter, or list of (train, test), default=5
        An int stands for `PatientStratifiedKFold`. Positions refer to `bags` as they came.
    groups : array-like of shape (n_bags,), optional
        E.g. sites: kept whole in the folds, passed to `fit` for the inner validation part,
        tabulated, and drawn whole in a second interval.
    n_repeats : int, default=1
        Repeats have other seeds of the estimator, and other folds unless `cv` is a list.
    random_state : int, default=0
        Source of all seeds: folds, estimators and bootstrap.
    pos_label : label, optional
        The positive one of two classes; by default the one that sorts last.
    n_bootstrap : int, default=2000
    confidence_level : float, default=0.95
    keep_models : bool, default=False
        Keep the fitted models, e.g. for :func:`evaluate_external`.
    n_jobs : int, optional
        Folds fitted at once, by joblib.

    Returns
    -------
    Evaluation

    Raises
    ------
    LeakageError
        If a patient stands on both sides of a split, or in several groups.
    TypeError
        If `omics` is given and no `fit` inside takes it, or there is no ``predict_proba``.
    ValueError
        If labels, splits or arguments are unusable.

    Warns
    -----
    UserWarning
        If a test part lacks a class: its AUROC is left out of the mean over folds.

    See Also
    --------
    compare : Several estimators on the same folds.
    compare_omics : Does omics help?
    evaluate_external : Fitted models on another cohort.

    Notes
    -----
    ``auroc`` is that of the pooled out-of-fold predictions, ``fold_auroc`` the mean of the AUROCs
    within folds, which does not compare scores of different models. ``_tuned`` metrics use, in
    each fold, the threshold with the best F1 on the estimator's inner validation part
    (``validation_``); they are NaN for estimators without one. The calibration error has ten bins
    of equal width over the positive class's probability, weighted by patients. More than two
    classes: AUROC and AUPRC one-vs-rest, averaged over classes, and no thresholds. Intervals are
    percentiles over draws of patients (within folds for ``fold_auroc``); with fewer than some
    twenty patients in a class they are somewhat too narrow. Chance in training is not in them, see
    ``n_repeats`` and :func:`seed_spread`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.cross_validation import evaluate
    >>> def mean_patch(bags):
    ...     return np.array([bag.load().features.mean(axis=0) for bag in bags])
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> bags = BagSequence(
    ...     Bag(random.normal(label, 1, size=(5, 3)), patient_id=f"P{i:02d}")
    ...     for i, label in enumerate(y)
    ... )
    >>> pooled = make_pipeline(FunctionTransformer(mean_patch), LogisticRegression())
    >>> result = evaluate(pooled, bags, y)
    >>> result.headline
    'LogisticRegression: 40 patients (20 x 0, 20 x 1), 5 folds'
    >>> bool(result.summary.loc["auroc", "low"] > 0.8)
    True
    """
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    study = checked_study(estimator, bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, n_repeats, random_state)
    outcomes = run_plan(
        study, estimator, plan, n_jobs=n_jobs, keep_models=keep_models, watch_memory=True
    )
    return collect(estimator_name(estimator), study, outcomes, bootstrap)


def checked_study(
    estimator: Any, bags: Any, y: Any, *, omics: Any, groups: Any, pos_label: Any
) -> Study:
    """The study; an error if the estimator cannot take omics that is given."""
    if omics is not None:
        require_omics(estimator)
    return as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label)


def run_plan(
    study: Study,
    estimator: Any,
    plan: Plan,
    *,
    omics: Sequence[OmicsTable | None] | None = None,
    n_jobs: int | None = None,
    keep_models: bool = False,
    watch_memory: bool = False,
) -> list[FoldOutcome]:
    """Outcomes of all folds, with the study's omics unless each repeat has a table of its own."""
    tables = [study.omics] * len(plan.splits) if omics is None else omics
    outcomes = run(
        study,
        estimator,
        plan,
        omics=tables,
        n_jobs=n_jobs,
        keep_models=keep_models,
        watch_memory=watch_memory,
    )
    _warn_of_absent_classes(study, outcomes)
    return outcomes


def estimator_name(estimator: Any) -> str:
    """Name of the classifier inside pipelines and searches."""
    return type(final_step(estimator)).__name__


def _warn_of_absent_classes(study: Study, outcomes: Sequence[FoldOutcome]) -> None:
    for outcome in outcomes:
        present = set(study.labels[outcome.tested].tolist())
        absent = [c for k, c in enumerate(study.classes) if k not in present]
        if absent:
            warnings.warn(
                f"The test part of fold {outcome.fold} (repeat {outcome.repeat}) has no patient of "
                f"class {first_few(absent)}: its AUROC is undefined and left out of the mean over "
                "folds. The pooled AUROC uses all patients.",
                UserWarning,
                stacklevel=4,
            )
