"""Two methods on the same patients and folds: the difference and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .inference import delong_test
from .outoffold import OutOfFold, mean_auroc, mean_fold_auroc
from .result import Bootstrap, fold_of_patient
from .study import Study

_TIE = 1e-12  # AUROCs that differ by rounding alone


def paired_difference(
    study: Study,
    first: Sequence[OutOfFold],
    second: Sequence[OutOfFold],
    bootstrap: Bootstrap,
) -> dict[str, float]:
    """First minus second: AUROC pooled and within folds, intervals, DeLong's test, folds won.

    Parameters
    ----------
    study : Study
    first, second : list of OutOfFold
        By repeat, on the same folds.
    bootstrap : Bootstrap
        The same patients are drawn for both methods; within folds for the AUROC within folds.
        Whole sites are drawn for ``..._sites``.
    """
    n = len(study.names)
    once, patients = np.ones((1, n)), bootstrap.patients(n)
    within = bootstrap.within(fold_of_patient(study, second))
    kinds = {"": (patients, within)}
    if study.sites is not None:
        kinds["_sites"] = (bootstrap.sites(study.sites),) * 2
    row = {"auroc": float((mean_auroc(first, once) - mean_auroc(second, once))[0])}
    for kind, (weights, _) in kinds.items():
        drawn = mean_auroc(first, weights) - mean_auroc(second, weights)
        row[f"low{kind}"], row[f"high{kind}"] = bootstrap.interval(drawn)
    row["fold_auroc"] = float((mean_fold_auroc(first, once) - mean_fold_auroc(second, once))[0])
    for kind, (_, weights) in kinds.items():
        drawn = mean_fold_auroc(first, weights) - mean_fold_auroc(second, weights)
        row[f"fold_low{kind}"], row[f"fold_high{kind}"] = bootstrap.interval(drawn)
    return row | _delong(first, second) | _folds_won(first, second, once)


def _delong(first: Sequence[OutOfFold], second: Sequence[OutOfFold]) -> dict[str, float]:
    y, patients = second[0].y, second[0].patients
    same = all(np.array_equal(r.patients, patients) for r in (*first, *second))
    if not same or second[0].proba.shape[1] != 2 or np.bincount(y, minlength=2).min() < 2:
        return {"p_delong": np.nan, "correlation": np.nan}
    scores = [np.stack([r.proba[:, 1] for r in repeats]) for repeats in (first, second)]
    test = delong_test(y == 1, *scores)
    return {"p_delong": test.p_value, "correlation": test.correlation}


def _folds_won(
    first: Sequence[OutOfFold], second: Sequence[OutOfFold], once: NDArray
) -> dict[str, int]:
    gaps = np.array(
        [
            (mine.take(mine.fold == f).auroc(once) - other.take(other.fold == f).auroc(once))[0]
            for mine, other in zip(first, second, strict=True)
            for f in np.unique(mine.fold)
        ]
    )
    gaps = gaps[np.isfinite(gaps)]
    return {
        "wins": int((gaps > _TIE).sum()),
        "ties": int((np.abs(gaps) <= _TIE).sum()),
        "losses": int((gaps < -_TIE).sum()),
    }
