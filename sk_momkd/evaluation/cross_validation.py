"""`evaluate`: out-of-fold results of one estimator, by patient, with intervals."""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.utils.parallel import Parallel, delayed

from ..data.omics import OmicsTable
from ..data.sequence import BagSequence
from ..data.training_patients import meet
from ..estimators.decisions import Predictions, innermost, predictions
from ..estimators.validation_scores import threshold_of_patients
from ..exceptions import LeakageError
from ..messages import first_few
from ..progress import labelled, progress_bar
from .evaluation_tables import build_evaluation
from .fold_results import FailedFold, FoldResult
from .peak_memory import PeakMemory
from .results import Evaluation, count_classes
from .routing import (
    agreed_pos_label,
    final_estimator,
    fit_arguments,
    needs_routing,
    require_omics,
    set_pos_label,
    set_seeds,
    warn_if_patients_are_split,
)
from .statistics import Bootstrap
from .study import Plan, Split, Study, as_study, make_plan

if TYPE_CHECKING:
    from tqdm import tqdm


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
    measure_memory: bool = False,
    error_score: Any = np.nan,
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

    Omics and groups reach the classifier through pipelines, searches, calibration, and, by
    scikit-learn's metadata routing, through its other meta-estimators: where these need it,
    or the caller has enabled it, requests that are not set are set on the clones.

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
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, n_repeats, random_state)
    name = estimator_name(estimator)
    with progress_bar(plan.n_fits, "fit", f"evaluate {name}", shown=verbose) as bar:
        folds = fit_folds(
            study,
            estimator,
            plan,
            bar=bar,
            n_jobs=n_jobs,
            keep_models=keep_models,
            measure_memory=measure_memory,
            error_score=error_score,
        )
    return build_evaluation(name, study, folds, bootstrap)


def estimator_name(estimator: Any) -> str:
    """Name of the classifier inside pipelines and searches."""
    return type(final_estimator(estimator)).__name__


# What estimators raise; not an interrupt, nor a lack of what they are made of.
_OF_DATA = (ValueError, TypeError, LookupError, OSError)
FAILURES: tuple[type[Exception], ...] = (*_OF_DATA, ArithmeticError, RuntimeError, MemoryError)


class _Fold(NamedTuple):
    repeat: int
    fold: int
    split: Split
    seed: int
    omics: OmicsTable | None


def fit_folds(
    study: Study,
    estimator: Any,
    plan: Plan,
    *,
    bar: tqdm | None = None,
    omics: Sequence[OmicsTable | None] | None = None,
    n_jobs: int | None = None,
    keep_models: bool = False,
    measure_memory: bool = False,
    error_score: Any = "raise",
) -> list[Any]:
    """Fit and predict all folds of all repeats: `FoldResult`, or `FailedFold` where one failed.

    The omics is that of the study, unless `omics` has a table (or None) for each repeat. `bar`
    counts the fits.
    """
    _check_error_score(error_score)
    tables = [study.omics] * len(plan.splits) if omics is None else omics
    _check_estimator(estimator, with_omics=any(table is not None for table in tables))
    warn_if_patients_are_split(estimator, len(study.bags), len(study.names))
    folds = [
        _Fold(repeat, fold, split, plan.seeds[repeat][fold], tables[repeat])
        for repeat, splits in enumerate(plan.splits)
        for fold, split in enumerate(splits)
    ]
    _refuse_to_fork_threads(n_jobs)
    results, keep = [], {"keep_model": keep_models, "measure_memory": measure_memory}
    for result in Parallel(n_jobs=n_jobs, return_as=_as_they_come())(
        delayed(_result_or_failure)(study, estimator, fold, catch=error_score != "raise", **keep)
        for fold in folds
    ):
        results.append(result)
        if bar is not None:
            bar.update()
    done = [result for result in results if isinstance(result, FoldResult)]
    _report_failures([result for result in results if isinstance(result, FailedFold)], done)
    _warn_if_classes_are_absent(study, done)
    return results


def _check_error_score(error_score: Any) -> None:
    is_nan = isinstance(error_score, float | np.floating) and np.isnan(error_score)
    if not is_nan and not (isinstance(error_score, str) and error_score == "raise"):
        raise ValueError(
            f'error_score must be numpy.nan or "raise", got {error_score!r}: of a fold that failed '
            "there are no predictions to score."
        )


def _result_or_failure(
    study: Study, estimator: Any, fold: _Fold, *, catch: bool, **options: Any
) -> FoldResult | FailedFold:
    try:
        return _fit_and_predict(study, estimator, fold, **options)
    except LeakageError:  # the design of the study is at fault, not a fold
        raise
    except FAILURES as error:
        if not catch:
            raise
        trained, tested = map(study.patients_at, fold.split)
        return FailedFold(fold.repeat, fold.fold, trained, tested, error)


def _report_failures(failed: Sequence[FailedFold], done: Sequence[FoldResult]) -> None:
    """Warn of folds that failed; raise the error of the first if a repeat has no other folds."""
    complete = {result.repeat for result in done}
    for failure in failed:
        if failure.repeat not in complete:
            failure.error.add_note("All folds of the repeat failed; this is the first of them.")
            raise failure.error
    for failure in failed:
        notes = " ".join(getattr(failure.error, "__notes__", []))
        warnings.warn(f"{failure} {notes}", FitFailedWarning, stacklevel=4)


def _as_they_come() -> str:
    """How joblib returns results: one by one in their order, where its backend can."""
    one_by_one = getattr(get_active_backend()[0], "supports_return_generator", False)
    return "generator" if one_by_one else "list"


def _refuse_to_fork_threads(n_jobs: int | None) -> None:
    """Raise where joblib would fork a process in which torch uses several threads.

    The threads do not exist in the forked process, which then waits for them forever.
    """
    torch = sys.modules.get("torch")
    backend, active = get_active_backend()
    forks = type(backend).__name__ == "MultiprocessingBackend"
    forks = forks and multiprocessing.get_start_method() == "fork"
    n_workers = backend.effective_n_jobs(active if n_jobs is None else n_jobs)
    if torch is None or not forks or n_workers == 1 or torch.get_num_threads() == 1:
        return
    raise RuntimeError(
        f"joblib's backend is multiprocessing, which forks this process, and torch has "
        f"{torch.get_num_threads()} threads in it: the workers would hang. Use joblib's default "
        'backend "loky", or call torch.set_num_threads(1) first.'
    )


def _check_estimator(estimator: Any, *, with_omics: bool) -> None:
    inner = final_estimator(estimator)  # a stack makes its default final estimator in fit alone
    default_stack = isinstance(inner, StackingClassifier) and inner.final_estimator is None
    if not default_stack and not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, on which AUROC, calibration and "
            "decision curves rest here. Calibrate the classifier inside: "
            f"CalibratedClassifierCV({type(inner).__name__}(), cv=PatientStratifiedKFold())."
        )
    if with_omics:
        require_omics(estimator)


def _fit_and_predict(
    study: Study, estimator: Any, fold: _Fold, *, keep_model: bool, measure_memory: bool
) -> FoldResult:
    train, test = fold.split
    model = set_seeds(set_pos_label(clone(estimator), study.classes), fold.seed)
    groups = None if study.groups is None else study.groups[train]
    routed = get_config()["enable_metadata_routing"]
    routed |= needs_routing(model) and (fold.omics is not None or groups is not None)
    memory = PeakMemory() if measure_memory else nullcontext()
    label = labelled(f"repeat {fold.repeat}, fold {fold.fold}")
    routing = config_context(enable_metadata_routing=routed)
    with memory, routing, label, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        arguments = fit_arguments(model, fold.omics, groups, study.patient_of[train])
        start = time.perf_counter()
        try:
            model.fit(study.bags[train], study.y[train], **arguments)
        except FAILURES as error:
            error.add_note(_of_fold(study, fold))
            raise
        fit_seconds = time.perf_counter() - start
    _check_untrained_on(model, study, fold)
    start = time.perf_counter()
    found = predictions(model, study.bags[test], study.classes)
    predict_seconds = time.perf_counter() - start
    proba, predicted = found.of_patients(np.unique(study.patient_of[test], return_inverse=True)[1])
    classifier = final_estimator(model)
    return FoldResult(
        fold.repeat,
        fold.fold,
        trained=study.patients_at(train),
        tested=study.patients_at(test),
        proba=proba,
        n_bags=np.unique(study.patient_of[test], return_counts=True)[1],
        threshold=threshold_of(model, found, study.classes),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
        fit_mib=memory.mib if isinstance(memory, PeakMemory) else None,
        model=model if keep_model else None,
        predicted=predicted,
        threshold_source=found.source,
        n_validation=None if found.source else _validation_counts(model, study.classes),
        prior=getattr(classifier, "prior", None) if hasattr(classifier, "sampled_prior_") else None,
        shares=_shares_of(classifier),
    )


def _shares_of(classifier: Any) -> dict[Any, float] | None:
    """Class shares that probabilities of this package's classifiers refer to; None of others."""
    if not hasattr(classifier, "sampled_prior_"):
        return None
    shares = classifier._shares_at(classifier.prior)
    return dict(zip(classifier.classes_.tolist(), shares.tolist(), strict=True))


def _check_untrained_on(model: Any, study: Study, fold: _Fold) -> None:
    """Raise if a part of the model, which `fit` took over fitted, was trained on test patients."""
    met = meet([model], study.bags[fold.split[1]])
    if met.names:
        raise LeakageError(
            f"Part of {type(model).__name__} was trained before the evaluation, on {met} of the "
            f"test part of fold {fold.fold} (repeat {fold.repeat}). Pass an estimator that is "
            "trained in each fold, without FrozenEstimator or prefit models."
        )


def _of_fold(study: Study, fold: _Fold) -> str:
    """Which fit of an evaluation failed, as a note of its error."""
    train, _ = fold.split
    patients = study.patients_at(train)
    counts = count_classes(study.classes, study.labels[patients])
    text = f"This was the fit of fold {fold.fold} (repeat {fold.repeat}), with {len(patients)} "
    text += f"training patients ({counts})"
    if fold.omics is not None:
        paired = study.patients_at(train[fold.omics.match(study.bags[train]) >= 0])
        counts = count_classes(study.classes, study.labels[paired])
        text += f", {len(paired)} of them with omics ({counts})"
    return f"{text}."


def bag_probabilities(model: Any, bags: BagSequence, classes: list[Any]) -> NDArray:
    """Predict probabilities in the order of `classes`; 0 for a class that training did not have.

    Raises
    ------
    ValueError
        If a value is not finite, or the model has a class that is none of `classes`.
    """
    return predictions(model, bags, classes).proba


def threshold_of(model: Any, found: Predictions, classes: list[Any]) -> float:
    """Threshold on the positive class: that of `predict`, else that of the validation part."""
    return found.positive_threshold if found.source else tuned_threshold(model, classes)


def tuned_threshold(model: Any, classes: list[Any]) -> float:
    """Threshold with the best F1 on the patients of the model's inner validation part.

    NaN if the model has none (attribute ``validation_``), for more than two classes, and for what
    decides in a way of its own around a classifier.
    """
    classifier = innermost(model)
    known = np.asarray(getattr(classifier, "classes_", ())).tolist()
    if len(classes) != 2 or len(known) != 2:
        return np.nan
    if hasattr(classifier, "_validation_threshold"):  # a classifier of this package
        return classifier._validation_threshold(classes[1])
    table = getattr(classifier, "validation_", None)
    return np.nan if table is None else threshold_of_patients(table, known, classes[1])


def _validation_counts(model: Any, classes: list[Any]) -> NDArray | None:
    """Patients of each class in the inner validation part of a model; None without one."""
    table = getattr(innermost(model), "validation_", None)
    if table is None:
        return None
    patient = table["patient_id"].where(table["patient_id"].notna(), table["bag_id"])
    named = patient.where(patient.notna(), pd.Series(range(len(table)), table.index))
    once = ~named.astype(str).duplicated()
    return np.array([(table.loc[once, "y"] == c).sum() for c in classes])


def _warn_if_classes_are_absent(study: Study, results: Sequence[FoldResult]) -> None:
    for result in results:
        present = set(study.labels[result.tested].tolist())
        absent = [c for k, c in enumerate(study.classes) if k not in present]
        if absent:
            warnings.warn(
                f"The test part of fold {result.fold} (repeat {result.repeat}) has no patient of "
                f"class {first_few(absent)}: its AUROC is undefined and left out of the mean over "
                "folds. The pooled AUROC uses all patients.",
                UserWarning,
                stacklevel=4,
            )
