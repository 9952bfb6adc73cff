"""`learning_curve`: what more training patients would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .cross_validation import checked_study, estimator_name, run_plan
from .results import Bootstrap, Tables, collect
from .study import Plan, Study, make_plan


@dataclass(frozen=True, repr=False)
class LearningCurve(Tables):
    """AUROC against the number of training patients; see :func:`learning_curve`.

    Attributes
    ----------
    points : DataFrame, index fraction
        ``n_train`` (mean over folds), ``auroc`` with ``low, high``, ``fold_auroc`` with
        ``fold_low, fold_high``, ``fold_std``.
    """

    name: str
    points: pd.DataFrame

    _shown = ("points",)

    @property
    def headline(self) -> str:
        """Estimator."""
        return f"{self.name}: AUROC against training patients"


def learning_curve(
    estimator: Any,
    bags: Any,
    y: Any,
    *,
    fractions: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    omics: Any = None,
    cv: Any = 5,
    groups: Any = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    n_jobs: int | None = None,
) -> LearningCurve:
    """AUROC on the same test patients with ever more training patients.

    Parameters
    ----------
    estimator, bags, y, omics, cv, groups, n_repeats, random_state, pos_label, n_bootstrap, \
confidence_level, n_jobs
        As in :func:`evaluate`.
    fractions : sequence of float, default=(0.25, 0.5, 0.75, 1.0)
        Of the training patients of each class in each fold, and there of those with omics and
        without; a smaller part lies within each larger one.

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
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.learning_curves import learning_curve
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> curve = learning_curve(DummyClassifier(), bags, np.arange(20) % 2, fractions=[0.5, 1])
    >>> curve.points["n_train"].to_list()
    [8.0, 16.0]
    """
    fractions = sorted({float(f) for f in fractions})
    if not fractions or not 0 < fractions[0] <= fractions[-1] <= 1:
        raise ValueError(f"fractions must lie above 0 and at most at 1, got {fractions}.")
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    study = checked_study(estimator, bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, n_repeats, random_state)
    name, rows = estimator_name(estimator), []
    for fraction in fractions:
        try:
            outcomes = run_plan(study, estimator, thinned(plan, study, fraction), n_jobs=n_jobs)
        except ValueError as error:
            error.add_note(
                f"This was with a fraction of {fraction:g} of the training patients; "
                "learning_curve takes larger ones as fractions=(...)."
            )
            raise
        result = collect(name, study, outcomes, bootstrap)
        whole, within = (result.summary.loc[m] for m in ("auroc", "fold_auroc"))
        rows.append(
            {
                "n_train": result.folds["n_train"].mean(),
                "auroc": whole["value"],
                "low": whole["low"],
                "high": whole["high"],
                "fold_auroc": within["value"],
                "fold_low": within["low"],
                "fold_high": within["high"],
                "fold_std": within["fold_std"],
            }
        )
    return LearningCurve(name, pd.DataFrame(rows, index=pd.Index(fractions, name="fraction")))


def thinned(plan: Plan, study: Study, fraction: float) -> Plan:
    """The plan with a share of each kind of training patients; smaller shares lie within."""
    splits = [
        [
            (study.bags_of(train, _share(study, train, fraction, seed)), test)
            for (train, test), seed in zip(folds, seeds, strict=True)
        ]
        for folds, seeds in zip(plan.splits, plan.seeds, strict=True)
    ]
    return replace(plan, splits=splits)


def _share(study: Study, train: NDArray, fraction: float, seed: int) -> NDArray:
    patients = np.random.default_rng(seed).permutation(study.patients(train))
    kinds = 2 * study.labels[patients]
    if study.omics is not None:
        paired = study.patients(np.flatnonzero(study.omics.match(study.bags) >= 0))
        kinds += np.isin(patients, paired)
    parts = [patients[kinds == kind] for kind in np.unique(kinds)]
    return np.concatenate([part[: int(np.ceil(fraction * len(part) - 1e-9))] for part in parts])
