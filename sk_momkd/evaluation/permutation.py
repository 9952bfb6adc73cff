"""Controls of a result: permuted labels and other seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..estimators.inner_pos_labels import agreed_pos_label
from .fold_results import PatientPredictions, mean_auroc, mean_fold_auroc, mean_metrics, pool_folds
from .result_tables import TableResult
from .results import positive_text
from .routing import estimator_name
from .study import Study, as_study, derive_seed, make_plan, permutation_generator
from .study_fits import PlannedFits, completed, run_fits

_SEED_SPREAD = 99  # random stream of seed_spread


@dataclass(frozen=True, repr=False)
class PermutationCheck(TableResult):
    """AUROC with permuted labels, made by :func:`permutation_check`.

    Attributes
    ----------
    name : str
        Class of the estimator.
    summary : DataFrame, index metric
        Rows ``auroc`` (pooled) and ``fold_auroc`` (mean within folds). Columns ``observed``,
        ``permuted_mean``, ``permuted_high`` (the largest), ``p_value``.
    permuted : DataFrame, index permutation
        Columns ``auroc``, ``fold_auroc``.
    classes : tuple
        Of two classes, the last is the positive one.
    label_names : dict of label to str
        What labels were in the table, where :func:`load_cohort` has coded them; else empty.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, permutation_check
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> check = permutation_check(DummyClassifier(), bags, np.arange(20) % 2, n_permutations=4)
    >>> check.summary.loc["auroc", "permuted_mean"]
    np.float64(0.5)
    """

    name: str
    summary: pd.DataFrame
    permuted: pd.DataFrame
    classes: tuple[Any, ...]
    label_names: dict[Any, str] = field(default_factory=dict, repr=False)

    _displayed = ("summary",)

    @property
    def headline(self) -> str:
        """Estimator, number of permutations and positive class."""
        return (
            f"{self.name} against {len(self.permuted)} permutations of the patients' labels"
            f"{positive_text(self.classes, self.label_names)}"
        )


@dataclass(frozen=True, repr=False)
class SeedSpread(TableResult):
    """One estimator with several seeds on the same folds, made by :func:`seed_spread`.

    Attributes
    ----------
    name : str
        Class of the estimator.
    summary : DataFrame, index metric
        Columns ``mean``, ``std``, ``min``, ``max`` over seeds.
    seeds : DataFrame, index seed
        One column per metric.
    classes : tuple
        Of two classes, the last is the positive one.
    label_names : dict of label to str
        What labels were in the table, where :func:`load_cohort` has coded them; else empty.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, seed_spread
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> seed_spread(DummyClassifier(), bags, np.arange(20) % 2, n_seeds=3).seeds["auroc"].to_list()
    [0.5, 0.5, 0.5]
    """

    name: str
    summary: pd.DataFrame
    seeds: pd.DataFrame
    classes: tuple[Any, ...]
    label_names: dict[Any, str] = field(default_factory=dict, repr=False)

    _displayed = ("summary",)

    @property
    def headline(self) -> str:
        """Estimator, number of seeds and positive class."""
        seeds = f"{len(self.seeds)} seeds on the same folds"
        return f"{self.name} with {seeds}{positive_text(self.classes, self.label_names)}"


def permutation_check(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    n_permutations: int = 20,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    random_state: int = 0,
    pos_label: Any = None,
    store: Any = None,
    n_jobs: int | None = None,
    verbose: bool | None = None,
) -> PermutationCheck:
    """Repeat the whole evaluation with labels permuted among patients.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        It is cloned, and each of its ``random_state`` is set, as in :func:`evaluate`.
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics, as in :func:`evaluate`.
    y : array-like of shape (n_bags,)
    n_permutations : int, default=20
        Number of permutations. The smallest possible p-value is ``1 / (1 + n_permutations)``.
    omics : AnnData, DataFrame with ids as index, or OmicsTable, optional
        Joined by id; used by `fit` alone.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. Folds and inner validation parts keep them whole.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit` with a value for each bag, as in :func:`evaluate`. They
        stay with their bags when labels are permuted.
    random_state : int, default=0
        Source of all seeds.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimator, else the one that sorts
        last. Each `pos_label` inside the estimator that is None is set to it.
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
    PermutationCheck
        Its p-value is ``(1 + n_as_good) / (1 + n_permutations)``, where ``n_as_good`` permutations
        have at least the observed AUROC.

    Raises
    ------
    LeakageError, TypeError, ValueError
        As :func:`evaluate`.

    Notes
    -----
    All bags of a patient get the label of another patient (that of most of its bags); omics stays
    with its patient. An int or splitter makes new folds for the permuted labels. A mean well above
    0.5 with permuted labels shows that the evaluation leaks.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, permutation_check
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> check = permutation_check(DummyClassifier(), bags, np.arange(20) % 2, n_permutations=4)
    >>> check.summary["p_value"].to_list()
    [1.0, 1.0]
    """
    _check_at_least_one("n_permutations", n_permutations)
    pos_label = agreed_pos_label([estimator], pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    if isinstance(cv, Iterator):  # each permutation has the same folds
        cv = list(cv)
    plan = make_plan(study, cv, 1, random_state)
    planned = [PlannedFits("labels as given", study, estimator, plan)]
    for number in range(1, n_permutations + 1):
        random = permutation_generator(random_state, number)
        permuted = study.with_labels(random.permutation(study.labels))
        plan = make_plan(permuted, cv, 1, random_state)
        planned.append(PlannedFits(f"permutation {number}", permuted, estimator, plan))
    name, options = (
        estimator_name(estimator),
        {"verbose": verbose, "store": store, "n_jobs": n_jobs},
    )
    results = run_fits(planned, call="permutation_check", of=name, **options)
    table = pd.DataFrame(
        _two_aurocs(one.study, pool_folds(completed(folds), one.study.labels))
        for one, folds in zip(planned, results, strict=True)
    )
    observed, chance = table.iloc[0], table.iloc[1:].rename_axis("permutation")
    as_good = (chance >= observed - 1e-12).sum()
    summary = pd.DataFrame(
        {
            "observed": observed,
            "permuted_mean": chance.mean(),
            "permuted_high": chance.max(),
            "p_value": (1 + as_good) / (1 + n_permutations),
        }
    )
    summary = summary.rename_axis("metric")
    return PermutationCheck(name, summary, chance, tuple(study.classes), study.label_names)


def seed_spread(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    n_seeds: int = 5,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    random_state: int = 0,
    pos_label: Any = None,
    store: Any = None,
    n_jobs: int | None = None,
    verbose: bool | None = None,
) -> SeedSpread:
    """Evaluate with several seeds on the same folds: the effect of random draws in training.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        It is cloned, and each of its ``random_state`` is set, as in :func:`evaluate`.
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics, as in :func:`evaluate`.
    y : array-like of shape (n_bags,)
    n_seeds : int, default=5
        Number of seeds of the estimator.
    omics : AnnData, DataFrame with ids as index, or OmicsTable, optional
        Joined by id; used by `fit` alone.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. Folds and inner validation parts keep them whole.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit` with a value for each bag, as in :func:`evaluate`.
    random_state : int, default=0
        Source of all seeds.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimator, else the one that sorts
        last. Each `pos_label` inside the estimator that is None is set to it.
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
    SeedSpread

    Raises
    ------
    LeakageError, TypeError, ValueError
        As :func:`evaluate`.

    Notes
    -----
    A difference between methods that is smaller than this spread may be due to chance alone.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, seed_spread
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> guess = DummyClassifier(strategy="uniform")
    >>> seed_spread(guess, bags, np.arange(20) % 2, n_seeds=3).summary["std"]["auroc"]
    np.float64(0.0)
    """
    _check_at_least_one("n_seeds", n_seeds)
    pos_label = agreed_pos_label([estimator], pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    plan = make_plan(study, cv, 1, random_state)
    seeds = [derive_seed(random_state, _SEED_SPREAD, i) for i in range(n_seeds)]
    planned = [
        PlannedFits(f"seed {seed}", study, estimator, plan.with_random_state(seed))
        for seed in seeds
    ]
    once, rows = np.ones((1, len(study.names))), []
    name, options = (
        estimator_name(estimator),
        {"verbose": verbose, "store": store, "n_jobs": n_jobs},
    )
    for folds in run_fits(planned, call="seed_spread", of=name, **options):
        repeats = pool_folds(completed(folds), study.labels)
        metrics = {name: value[0] for name, value in mean_metrics(repeats, once).items()}
        rows.append(_two_aurocs(study, repeats) | metrics)
    table = pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))
    summary = table.agg(["mean", "std", "min", "max"]).T.rename_axis("metric")
    return SeedSpread(name, summary, table, tuple(study.classes), study.label_names)


def _two_aurocs(study: Study, repeats: Sequence[PatientPredictions]) -> dict[str, float]:
    once = np.ones((1, len(study.names)))
    return {
        "auroc": float(mean_auroc(repeats, once)[0]),
        "fold_auroc": float(mean_fold_auroc(repeats, once)[0]),
    }


def _check_at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number!r}.")
