"""`evaluate`: out-of-fold results of one estimator, by patient, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..estimators.inner_pos_labels import agreed_pos_label
from .evaluation_tables import build_evaluation
from .results import Evaluation
from .routing import estimator_name
from .statistics import Bootstrap
from .study import as_study, make_plan
from .study_fits import PlannedFits, run_fits


def evaluate(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
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
) -> Evaluation:
    """Cross-validate an estimator by patient, with intervals for all metrics.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        A classifier of this package, a pipeline, search or threshold around one, or any
        scikit-learn pipeline that takes bags. It is cloned, and each of its ``random_state`` is
        set.
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics: its probability is the mean over its bags, its
        label that of most of them. A bag without patient id is its own patient.
    y : array-like of shape (n_bags,)
    omics : AnnData, DataFrame with ids as index, or OmicsTable, optional
        Joined by id; used by `fit` alone.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. The folds keep groups whole, and so does the inner validation part, as `fit`
        receives them. The result has a table of groups and a second interval for which whole
        groups are drawn.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit` with a value for each bag, such as ``{"sample_weight": w}``; each
        fit gets those of its training part. Metrics are not weighted.
    n_repeats : int, default=1
        Each repeat has other seeds of the estimator, and other folds unless `cv` is a list.
    random_state : int, default=0
        Source of all seeds: folds, estimators and bootstrap.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimator, else the one that sorts
        last. Each `pos_label` inside the estimator that is None is set to it.
    n_bootstrap : int, default=2000
        Number of bootstrap samples.
    confidence_level : float, default=0.95
        Confidence level of the intervals.
    keep_models : bool, default=False
        Keep the fitted models, e.g. for :func:`evaluate_external`.
    measure_memory : bool, default=False
        Measure the most memory that each fit holds: column ``fit_mib`` of ``folds``. Each fit then
        waits for a full garbage collection.
    error_score : numpy.nan or "raise", default=numpy.nan
        What a fold does whose fit or prediction fails: with NaN, a warning gives the error, table
        `failed` and the note of the result name the fold, and metrics are about the patients of the
        other folds; "raise" ends the evaluation. If all folds of a repeat fail, it always ends.
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
    Evaluation

    Raises
    ------
    LeakageError
        If a patient is on both sides of a split, or in several groups.
    TypeError
        If `omics` or one of `params` is given and no `fit` inside takes it, or there is no
        ``predict_proba``.
    ValueError
        If labels, splits or arguments are unusable, or one of `params` has another length.

    Warns
    -----
    UserWarning
        If a test part lacks a class: its AUROC is left out of the mean over folds.

    See Also
    --------
    compare : Several estimators on the same folds.
    compare_omics : Whether omics helps.
    evaluate_external : Fitted models on another cohort.

    Notes
    -----
    ``auroc`` is the AUROC of the pooled out-of-fold predictions. ``fold_auroc`` is the mean of the
    AUROCs within folds, which does not compare scores of different models. The calibration error
    has ten bins of equal width over the probability of the positive class, weighted by patients.
    For more than two classes, AUROC and AUPRC are one-vs-rest, averaged over classes, and there
    are no thresholds.

    Accuracies, F1, sensitivity and specificity are those of the estimator's own `predict`, with a
    `decision_threshold`, `FixedThresholdClassifier` or `TunedThresholdClassifierCV` at that
    threshold. For a patient with several bags, the threshold (or the choice of the most probable
    class) is applied to the mean probability; where `predict` follows another rule, most bags
    decide, and a tie is negative. Thresholds that were chosen on bags are therefore applied to
    patients; :meth:`Evaluation.threshold` chooses one on patients. Metrics with the suffix
    ``_tuned`` are at the threshold in column ``threshold``: that of `predict`, else, in each fold,
    the one with the best F1 on the estimator's inner validation part (``validation_``). They are
    NaN without either.

    Omics, groups and `params` reach the classifier through pipelines, searches, calibration, and,
    by scikit-learn's metadata routing, through its other meta-estimators: where these need it, or
    the caller has enabled it, requests that are not set are set on the clones.

    Intervals are percentiles over bootstrap samples of patients (within folds for ``fold_auroc``).
    They do not contain the randomness of training, see `n_repeats` and :func:`seed_spread`. With
    fewer than 20 patients in one of two classes the bootstrap is too narrow: AUROCs then have score
    intervals [1]_, sensitivity, specificity and accuracy exact ones, AUPRC and F1 those of a
    proportion of the rarer class, and ``result.note`` says so.

    References
    ----------
    .. [1] R. G. Newcombe, "Confidence intervals for an effect size measure based on the
       Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, BagSequence, evaluate
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> bags = BagSequence(
    ...     Bag(random.normal(label, 1, size=(5, 3)), patient_id=f"P{i:02d}")
    ...     for i, label in enumerate(y)
    ... )
    >>> result = evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y)
    >>> result.headline
    'LogisticRegression: 40 patients (20 x 0, 20 x 1), positive class 1, 5 folds'
    >>> bool(result.summary.loc["auroc", "low"] > 0.8)
    True
    """
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    pos_label = agreed_pos_label([estimator], pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    plan = make_plan(study, cv, n_repeats, random_state)
    name = estimator_name(estimator)
    (folds,) = run_fits(
        [PlannedFits("evaluate", study, estimator, plan)],
        call="evaluate",
        of=name,
        verbose=verbose,
        store=store,
        n_jobs=n_jobs,
        keep_models=keep_models,
        measure_memory=measure_memory,
        error_score=error_score,
    )
    return build_evaluation(name, study, folds, bootstrap)
