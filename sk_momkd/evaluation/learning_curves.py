"""`learning_curve`: AUROC against the number of training patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..estimators.inner_pos_labels import agreed_pos_label
from .evaluation_tables import build_evaluation
from .result_tables import TableResult
from .results import positive_text, two_aurocs
from .routing import estimator_name
from .statistics import Bootstrap
from .study import Plan, Study, as_study, make_plan
from .study_fits import PlannedFits, run_fits


@dataclass(frozen=True, repr=False)
class LearningCurve(TableResult):
    """AUROC against the number of training patients, made by :func:`learning_curve`.

    Attributes
    ----------
    name : str
        Class of the estimator.
    points : DataFrame, index fraction
        Columns ``n_train`` (patients, mean over folds), ``auroc`` (pooled) with interval ``low``,
        ``high``, ``fold_auroc`` (mean within folds) with ``fold_low``, ``fold_high``, and
        ``fold_std``.
    classes : tuple
        Of two classes, the last is the positive one.
    label_names : dict of label to str
        What labels were in the table, where :func:`load_cohort` has coded them; else empty.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, learning_curve
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> curve = learning_curve(DummyClassifier(), bags, np.arange(20) % 2, n_bootstrap=100)
    >>> curve.points.index.to_list()
    [0.25, 0.5, 0.75, 1.0]
    """

    name: str
    points: pd.DataFrame
    classes: tuple[Any, ...]
    _note: str = field(repr=False)
    label_names: dict[Any, str] = field(default_factory=dict, repr=False)

    _displayed = ("points",)

    @property
    def note(self) -> str:
        """How to read intervals of few patients; empty where no class has few."""
        return self._note

    @property
    def headline(self) -> str:
        """Estimator and positive class."""
        positive = positive_text(self.classes, self.label_names)
        return f"{self.name}: AUROC against training patients{positive}"


def learning_curve(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    fractions: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    error_score: Any = np.nan,
    store: Any = None,
    n_jobs: int | None = None,
    verbose: bool | None = None,
) -> LearningCurve:
    """Evaluate on the same test patients with more and more training patients.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        It is cloned, and each of its ``random_state`` is set, as in :func:`evaluate`.
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics, as in :func:`evaluate`.
    y : array-like of shape (n_bags,)
    fractions : sequence of float, default=(0.25, 0.5, 0.75, 1.0)
        Parts of the training patients of each fold, stratified by class and, with omics, by
        whether a patient has it. Each part contains the smaller ones.
    omics : AnnData, DataFrame with ids as index, or OmicsTable, optional
        Joined by id; used by `fit` alone.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. Folds and inner validation parts keep them whole.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit` with a value for each bag, as in :func:`evaluate`.
    n_repeats : int, default=1
        Each repeat has other seeds of the estimator, and other folds unless `cv` is a list.
    random_state : int, default=0
        Source of all seeds.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimator, else the one that sorts
        last. Each `pos_label` inside the estimator that is None is set to it.
    n_bootstrap : int, default=2000
        Number of bootstrap samples.
    confidence_level : float, default=0.95
        Confidence level of the intervals.
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
    LearningCurve

    Raises
    ------
    ValueError
        If a fraction is not above 0 and at most 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, learning_curve
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> curve = learning_curve(DummyClassifier(), bags, np.arange(20) % 2, fractions=[0.5, 1])
    >>> curve.points["n_train"].to_list()
    [8.0, 16.0]
    """
    fractions = sorted({float(f) for f in fractions})
    if not fractions or not 0 < fractions[0] <= fractions[-1] <= 1:
        raise ValueError(f"fractions must be above 0 and at most 1, got {fractions}.")
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    pos_label = agreed_pos_label([estimator], pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    plan = make_plan(study, cv, n_repeats, random_state)
    name, rows, failures = estimator_name(estimator), [], []
    of_fractions = run_fits(
        [_planned(study, estimator, plan, fraction) for fraction in fractions],
        call="learning_curve",
        of=name,
        verbose=verbose,
        store=store,
        n_jobs=n_jobs,
        error_score=error_score,
    )
    for folds in of_fractions:
        result = build_evaluation(name, study, folds, bootstrap)
        failures += [result.failures] if result.failures else []
        rows.append({"n_train": result.folds["n_train"].mean()} | two_aurocs(result))
    points = pd.DataFrame(rows, index=pd.Index(fractions, name="fraction"))
    note = " ".join([*failures, result.cautions.removeprefix(result.failures).strip()]).strip()
    return LearningCurve(name, points, tuple(study.classes), note, study.label_names)


def _planned(study: Study, estimator: Any, plan: Plan, fraction: float) -> PlannedFits:
    note = (
        f"This was with a fraction of {fraction:g} of the training patients; if they are too few, "
        "pass larger ones to learning_curve as fractions=(...)."
    )
    part = subsample_training(plan, study, fraction)
    return PlannedFits(f"fraction {fraction:g}", study, estimator, part, note=note)


def subsample_training(plan: Plan, study: Study, fraction: float) -> Plan:
    """Keep a stratified part of the training patients; larger parts contain smaller ones."""
    splits = [
        [
            (study.bags_of(train, _subsample(study, train, fraction, seed)), test)
            for (train, test), seed in zip(folds, seeds, strict=True)
        ]
        for folds, seeds in zip(plan.splits, plan.seeds, strict=True)
    ]
    return replace(plan, splits=splits)


def _subsample(study: Study, train: NDArray, fraction: float, seed: int) -> NDArray:
    patients = np.random.default_rng(seed).permutation(study.patients_at(train))
    strata = 2 * study.labels[patients]
    if study.omics is not None:
        paired = study.patients_at(np.flatnonzero(study.omics.match(study.bags) >= 0))
        strata += np.isin(patients, paired)
    parts = [patients[strata == stratum] for stratum in np.unique(strata)]
    return np.concatenate([part[: int(np.ceil(fraction * len(part) - 1e-9))] for part in parts])
