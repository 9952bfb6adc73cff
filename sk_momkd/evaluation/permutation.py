"""Controls of a result: labels permuted among patients, seeds changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .cross_validation import checked_study, estimator_name, run_plan
from .results import OutOfFold, Tables, mean_auroc, mean_fold_auroc, pooled
from .study import Study, make_plan, seed_of, shuffles

_SEEDS = 99  # path of the seeds that seed_spread adds


@dataclass(frozen=True, repr=False)
class PermutationCheck(Tables):
    """AUROC with permuted labels; see :func:`permutation_check`.

    Attributes
    ----------
    summary : DataFrame, index metric
        ``observed``, ``permuted_mean``, ``permuted_high`` (the largest), ``p_value``.
    permuted : DataFrame, index permutation
        ``auroc, fold_auroc`` of each permutation.
    """

    name: str
    summary: pd.DataFrame
    permuted: pd.DataFrame

    _shown = ("summary",)

    @property
    def headline(self) -> str:
        """Estimator and number of permutations."""
        return f"{self.name} against {len(self.permuted)} permutations of the patients' labels"


@dataclass(frozen=True, repr=False)
class SeedSpread(Tables):
    """One estimator with several seeds on the same folds; see :func:`seed_spread`.

    Attributes
    ----------
    summary : DataFrame, index metric
        ``mean, std, min, max`` over seeds.
    seeds : DataFrame, index seed
        Metrics for each seed.
    """

    name: str
    summary: pd.DataFrame
    seeds: pd.DataFrame

    _shown = ("summary",)

    @property
    def headline(self) -> str:
        """Estimator and number of seeds."""
        return f"{self.name} with {len(self.seeds)} seeds on the same folds"


def permutation_check(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    n_permutations: int = 20,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    random_state: int = 0,
    pos_label: Any = None,
    n_jobs: int | None = None,
) -> PermutationCheck:
    """Repeat the whole evaluation with labels permuted among patients.

    Parameters
    ----------
    estimator, bags, y, omics, cv, groups, random_state, pos_label, n_jobs
        As in :func:`evaluate`.
    n_permutations : int, default=20
        The smallest p-value is one over this number plus one.

    Returns
    -------
    PermutationCheck
        p = (1 + number of permutations at least as good) / (1 + number of permutations).

    Notes
    -----
    All bags of a patient get the label of another patient (of most of its bags); omics stays with
    its patient. An int or splitter deals the permuted patients anew. A mean well above 0.5 with
    permuted labels means that the evaluation leaks.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.permutation import permutation_check
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> check = permutation_check(DummyClassifier(), bags, np.arange(20) % 2, n_permutations=4)
    >>> check.summary["p_value"].to_list()
    [1.0, 1.0]
    """
    _require_some("n_permutations", n_permutations)
    study = checked_study(estimator, bags, y, omics=omics, groups=groups, pos_label=pos_label)
    rows = []
    for number in range(n_permutations + 1):
        permuted = study
        if number:
            labels = shuffles(random_state, number).permutation(study.labels)
            permuted = study.relabelled(labels)
        plan = make_plan(permuted, cv, 1, random_state)
        repeats = pooled(run_plan(permuted, estimator, plan, n_jobs=n_jobs), permuted.labels)
        rows.append(_two_aurocs(permuted, repeats))
    table = pd.DataFrame(rows)
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
    return PermutationCheck(estimator_name(estimator), summary.rename_axis("metric"), chance)


def seed_spread(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    n_seeds: int = 5,
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    random_state: int = 0,
    pos_label: Any = None,
    n_jobs: int | None = None,
) -> SeedSpread:
    """How far chance in training moves the numbers, on the same folds.

    Parameters
    ----------
    estimator, bags, y, omics, cv, groups, random_state, pos_label, n_jobs
        As in :func:`evaluate`.
    n_seeds : int, default=5

    Returns
    -------
    SeedSpread
        A difference between methods that is smaller than this spread is no difference.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.permutation import seed_spread
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> guess = DummyClassifier(strategy="uniform")
    >>> seed_spread(guess, bags, np.arange(20) % 2, n_seeds=3).summary["std"]["auroc"]
    np.float64(0.0)
    """
    _require_some("n_seeds", n_seeds)
    study = checked_study(estimator, bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, 1, random_state)
    seeds = [seed_of(random_state, _SEEDS, i) for i in range(n_seeds)]
    once, rows = np.ones((1, len(study.names))), []
    for seed in seeds:
        outcomes = run_plan(study, estimator, plan.reseeded(seed), n_jobs=n_jobs)
        (repeat,) = pooled(outcomes, study.labels)
        scores = {name: value[0] for name, value in repeat.scores(once).items()}
        rows.append(_two_aurocs(study, [repeat]) | scores)
    table = pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))
    summary = table.agg(["mean", "std", "min", "max"]).T.rename_axis("metric")
    return SeedSpread(estimator_name(estimator), summary, table)


def _two_aurocs(study: Study, repeats: Iterable[OutOfFold]) -> dict[str, float]:
    repeats, once = list(repeats), np.ones((1, len(study.names)))
    return {
        "auroc": float(mean_auroc(repeats, once)[0]),
        "fold_auroc": float(mean_fold_auroc(repeats, once)[0]),
    }


def _require_some(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number!r}.")
