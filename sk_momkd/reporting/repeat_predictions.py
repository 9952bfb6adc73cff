"""Predictions of a result as arrays, one set per repeat of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..evaluation.thresholds import VALIDATION_PART
from .displays.style import shortened


@dataclass(frozen=True)
class RepeatPredictions:
    """Predictions of one repeat of an evaluation.

    Attributes
    ----------
    y : int ndarray of shape (n_patients,)
        Class numbers; with two classes, 1 is the positive one.
    proba : ndarray of shape (n_patients, n_classes)
    predicted : int ndarray of shape (n_patients,)
        Class numbers that the estimator's `predict` says.
    thresholds : ndarray
        The distinct thresholds that the models chose.
    """

    y: NDArray
    proba: NDArray
    predicted: NDArray
    thresholds: NDArray


def predictions_by_repeat(result: Any) -> list[RepeatPredictions]:
    """Return the predictions of each repeat of an `Evaluation`, or of an external ensemble.

    Raises
    ------
    TypeError
        If `result` is neither an `Evaluation` nor an `ExternalEvaluation`.
    """
    table = getattr(result, "predictions", None)
    classes = getattr(result, "classes", None)
    if not isinstance(table, pd.DataFrame) or classes is None:
        raise TypeError(
            "Expected the result of evaluate(...) or evaluate_external(...), got "
            f"{type(result).__name__}. Of a comparison, pass one of its .evaluations."
        )
    if "repeat" not in table:
        return [_of_repeat(table, classes, _ensemble_threshold(result))]
    return [_of_repeat(rows, classes, rows["threshold"]) for _, rows in table.groupby("repeat")]


def _ensemble_threshold(result: Any) -> pd.Series:
    chosen = result.by_model["threshold"].mean(skipna=False)
    return pd.Series(chosen, index=result.predictions.index)


def _of_repeat(
    table: pd.DataFrame, classes: tuple[Any, ...], threshold: pd.Series
) -> RepeatPredictions:
    number = {c: k for k, c in enumerate(classes)}
    y = np.array([number[c] for c in table["y"]])
    proba = table[[f"p_{c}" for c in classes]].to_numpy(dtype=float)
    predicted = np.array([number[c] for c in table["predicted"]])
    none = threshold.isna().any() or len(classes) != 2
    return RepeatPredictions(y, proba, predicted, np.array([]) if none else np.unique(threshold))


def decision_rule(result: Any) -> str:
    """How `predict` decides, in words: at which thresholds, or by the largest probability."""
    table = result.by_model if hasattr(result, "by_model") else result.folds
    known = table["threshold_source"].dropna()
    own = table.loc[known.index[known != VALIDATION_PART]]
    if len(own) and len(own) == len(table):
        low, high = own["threshold"].min(), own["threshold"].max()
        span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        sources = ", ".join(pd.unique(own["threshold_source"]))
        return f"at the threshold {span} of predict ({sources})"
    parts = predictions_by_repeat(result)
    plain = all(np.array_equal(p.proba.argmax(axis=1), p.predicted) for p in parts)
    return "most probable class" if plain else "as predict of the models decides"


def with_interval(result: Any, metric: str) -> tuple[float, float, float]:
    """Value of a metric and its interval; of an external evaluation, those of the ensemble."""
    row = result.summary.loc[metric]
    names = ("value", "low", "high")
    if "ensemble" in row:
        names = ("ensemble", "ensemble_low", "ensemble_high")
    value, low, high = (float(row[name]) for name in names)
    return value, low, high


def positive_title(result: Any) -> str:
    """Positive one of two classes of a result as the title of a figure; empty for more classes."""
    if len(result.classes) != 2:
        return ""
    label = result.classes[1]
    named = getattr(result, "label_names", {}).get(label)
    return f"positive class: {shortened(str(label))}" + (f" = {shortened(named)}" if named else "")


def positive_note(result: Any) -> str:
    """Positive one of two classes, to be put after a caption; empty for more classes."""
    title = positive_title(result)
    return f" ({title})" if title else ""


def ensemble_note(result: Any) -> str:
    """Say that the numbers are those of an ensemble, where they are; to be put after a caption."""
    models = getattr(result, "by_model", ())
    return f" of the ensemble of {len(models)} models" if len(models) > 1 else ""


def interval_text(low: float, high: float) -> str:
    """Format ``[low, high]`` without line breaks; empty for NaN."""
    return "" if low != low else f"[{low:.3f},\N{NO-BREAK SPACE}{high:.3f}]"


def require_two_classes(result: Any, what: str) -> None:
    """Raise a ValueError unless the result has two classes."""
    if len(result.classes) != 2:
        raise ValueError(
            f"{what} needs two classes, but the result has {len(result.classes)}: "
            f"{', '.join(map(repr, result.classes))}."
        )
