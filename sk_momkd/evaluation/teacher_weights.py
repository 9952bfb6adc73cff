"""Weights of the omics teacher that the fits of an evaluation have chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from .fold_results import FoldResult
from .routing import layers

_PARAMETERS = ("lambda_teacher", "weight")  # each with the weight itself in `<name>_`


def learned_from_omics(model: Any) -> Any:
    """The outermost part of a fitted model that was trained with omics; None if none was."""
    return next((part for part in layers(model) if getattr(part, "n_paired_", 0)), None)


def choice_of(model: Any) -> dict[str, Any]:
    """Weight, verdict and report of the classifier inside that has chosen the weight.

    They are named as in `FoldResult`; empty where no weight was to be chosen.
    """
    for part in layers(model):
        name = next((name for name in _PARAMETERS if hasattr(part, name)), "")
        if not hasattr(part, "teacher_verdict_") or getattr(part, name, None) != "auto":
            continue
        report = getattr(part, "teacher_report_", None)
        return {
            "teacher_weight": float(getattr(part, f"{name}_")),
            "teacher_verdict": part.teacher_verdict_,
            "teacher_report": None if report is None or report.empty else report.reset_index(),
        }
    return {}


def joined_reports(folds: Iterable[FoldResult]) -> pd.DataFrame | None:
    """What the choices of all folds saw; None where none saw anything."""
    reports = []
    for fold in folds:
        if fold.teacher_report is None:
            continue
        report = fold.teacher_report.copy()
        report.insert(0, "repeat", fold.repeat)
        report.insert(1, "fold", fold.fold)
        report.insert(3, "chosen", report["weight"] == fold.teacher_weight)
        reports.append(report)
    return pd.concat(reports, ignore_index=True) if reports else None


def weights_of(folds: pd.DataFrame) -> pd.Series:
    """Chosen weights of the folds in which one was chosen, from a table of folds."""
    if "teacher_weight" not in folds:
        return pd.Series(dtype=float)
    return folds["teacher_weight"].dropna()


def counted_weights(folds: pd.DataFrame) -> str:
    """In how many folds each weight was chosen, as text; empty where none was.

    Examples
    --------
    >>> import pandas as pd
    >>> counted_weights(pd.DataFrame({"teacher_weight": [0, 0.5, 0]}))
    '0 in 2 folds, 0.5 in 1 fold'
    """
    counts = weights_of(folds).value_counts().sort_index()
    return ", ".join(f"{w:g} in {n} fold{'s' * (n > 1)}" for w, n in counts.items())


def weights_note(folds: pd.DataFrame) -> str:
    """Which weights were chosen, as a sentence; empty where none was."""
    counted = counted_weights(folds)
    return f"Weight of the omics teacher, chosen in each fold: {counted}." if counted else ""


def gains_by_weight(report: pd.DataFrame) -> pd.DataFrame:
    """Mean over folds of what the choices saw, and how often each weight was chosen.

    Parameters
    ----------
    report : DataFrame
        As from `joined_reports`, or ``teacher_report_`` of one fit with its index as a column.
    """
    by_weight = report.drop(columns=["repeat", "fold", "chosen"], errors="ignore")
    table = by_weight.groupby("weight").mean()
    if "chosen" in report:
        table.insert(0, "folds that chose it", report.groupby("weight")["chosen"].sum())
    return table


def weights_by_method(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Number of folds by method and chosen weight, from tables of folds by method."""
    counts = {name: weights_of(folds).value_counts() for name, folds in tables.items()}
    table = pd.DataFrame({name: count for name, count in counts.items() if len(count)})
    table = table.sort_index().T.fillna(0).astype(int)
    return table.rename(columns="weight {:g}".format).rename_axis("method")
