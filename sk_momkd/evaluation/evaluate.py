"""`evaluate`: out-of-fold numbers of one estimator, by patient, with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ..data.omics import OmicsTable
from ..data.sequence import first_few
from .fitting import FoldOutcome, run
from .plan import Plan, make_plan
from .result import Bootstrap, Evaluation, collect
from .routing import final_step, require_omics
from .study import Study, as_study


def evaluate(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
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
    repeats : int, default=1
        Repeats have other seeds of the estimator, and other folds unless `cv` is a list.
    random_state : int, default=0
        Source of all seeds: folds, estimators and bootstrap.
    pos_label : label, optional
        The positive one of two classes; by default the one that sorts last.
    n_bootstrap : int, default=2000
    confidence : float, default=0.95
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
    ``repeats`` and :func:`seed_spread`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.evaluate import evaluate
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
    bootstrap = Bootstrap(n_bootstrap, confidence, random_state)
    study = checked_study(estimator, bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, repeats, random_state)
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
