"""The predictions of a result as arrays, whichever evaluation they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predicted:
    """Predictions of one repeat.

    Attributes
    ----------
    y : int ndarray of shape (n_patients,)
        Class numbers; of two classes, 1 is the positive one.
    proba : ndarray of shape (n_patients, n_classes)
    tuned : int ndarray of shape (n_patients,) or None
        Decisions at the chosen thresholds.
    thresholds : ndarray
        Those that were chosen, each once.
    """

    y: NDArray
    proba: NDArray
    tuned: NDArray | None
    thresholds: NDArray

    @property
    def decided(self) -> NDArray:
        """At the chosen thresholds where there are some, else the most probable class."""
        return self.proba.argmax(axis=1) if self.tuned is None else self.tuned


def predicted(result: Any) -> list[Predicted]:
    """Predictions of each repeat of an `Evaluation`, or of an `ExternalEvaluation`'s ensemble.

    Raises
    ------
    TypeError
        If `result` is neither.
    """
    table = getattr(result, "predictions", None)
    classes = getattr(result, "classes", None)
    if not isinstance(table, pd.DataFrame) or classes is None:
        raise TypeError(
            "Expected the result of evaluate(...) or evaluate_external(...), got "
            f"{type(result).__name__}. A comparison has them in its .evaluations."
        )
    if "repeat" not in table:
        return [_of_repeat(table, classes, _ensemble_threshold(result))]
    return [_of_repeat(rows, classes, rows["threshold"]) for _, rows in table.groupby("repeat")]


def _ensemble_threshold(result: Any) -> pd.Series:
    chosen = result.by_model["threshold"].mean(skipna=False)
    return pd.Series(chosen, index=result.predictions.index)


def _of_repeat(table: pd.DataFrame, classes: tuple[Any, ...], threshold: pd.Series) -> Predicted:
    number = {c: k for k, c in enumerate(classes)}
    y = np.array([number[c] for c in table["y"]])
    proba = table[[f"p_{c}" for c in classes]].to_numpy(dtype=float)
    if threshold.isna().any() or len(classes) != 2:
        return Predicted(y, proba, None, np.array([]))
    tuned = (proba[:, 1] >= threshold.to_numpy()).astype(int)
    return Predicted(y, proba, tuned, np.unique(threshold))


def with_interval(result: Any, metric: str) -> tuple[float, float, float]:
    """Value of a metric with its interval; of an external evaluation, that of the ensemble."""
    row = result.summary.loc[metric]
    names = ("value", "low", "high")
    if "ensemble" in row:
        names = ("ensemble", "ensemble_low", "ensemble_high")
    value, low, high = (float(row[name]) for name in names)
    return value, low, high


def interval_text(low: float, high: float) -> str:
    """``[low, high]`` in one unbreakable piece; empty where unknown."""
    return "" if low != low else f"[{low:.3f},\N{NO-BREAK SPACE}{high:.3f}]"


def require_two_classes(result: Any, what: str) -> None:
    """Raise where there is no positive class."""
    if len(result.classes) != 2:
        raise ValueError(
            f"{what} needs two classes, the result has {len(result.classes)}: "
            f"{', '.join(map(repr, result.classes))}."
        )
