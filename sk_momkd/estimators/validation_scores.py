"""Thresholds by the validation part of a fit, and what of that part is saved: no patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..messages import warn


def best_threshold(positive: NDArray, score: NDArray) -> float:
    """Threshold (score >= threshold is positive) with the highest F1 of the positive class.

    The candidates are the scores that occur. Of several best thresholds the lowest is taken.

    Examples
    --------
    >>> import numpy as np
    >>> best_threshold(np.array([False, True, False, True]), np.array([0.1, 0.3, 0.4, 0.9]))
    0.3
    """
    candidates, place = np.unique(score, return_inverse=True)
    called = np.bincount(place)[::-1].cumsum()[::-1]  # patients with at least this score
    true = np.bincount(place, positive)[::-1].cumsum()[::-1]
    return float(candidates[np.argmax(2 * true / (called + positive.sum()))])


def threshold_of_patients(table: pd.DataFrame, classes: Sequence[Any], positive: Any) -> float:
    """Threshold with the best F1 on the patients of ``validation_``.

    Parameters
    ----------
    table : DataFrame
        A row per bag: ``bag_id``, ``patient_id``, ``y`` and ``p_<class>``.
    classes : sequence of two labels
        In the order of the columns of probabilities.
    positive : label
    """
    columns = [c for c in table.columns if str(c).startswith("p_")]
    scores = table[columns[list(classes).index(positive)]]
    unknown = pd.Series([f"row {i}" for i in range(len(table))], index=table.index)
    bag = table["bag_id"].where(table["bag_id"].notna(), unknown)
    patient = table["patient_id"].where(table["patient_id"].notna(), bag).astype(str)
    means = pd.DataFrame({"p": scores, "y": table["y"] == positive}).groupby(patient).mean()
    return best_threshold((means["y"] > 0.5).to_numpy(), means["p"].to_numpy())


@dataclass(frozen=True, eq=False)
class SavedThresholds:
    """What a saved model keeps of its validation part.

    Attributes
    ----------
    thresholds : dict of label to float
        For each of two classes as the positive one; empty for more classes.
    prior : ndarray of shape (n_classes,) or None
        Class shares that the thresholds refer to; None for those of the sampler.
    """

    thresholds: dict[Any, float]
    prior: NDArray | None

    @classmethod
    def of(cls, table: pd.DataFrame, classes: Sequence[Any], prior: NDArray | None) -> Self:
        """The thresholds by the table of a validation part, as :func:`threshold_of_patients`."""
        positives = classes if len(classes) == 2 else ()
        return cls({c: threshold_of_patients(table, classes, c) for c in positives}, prior)

    def at(self, prior: NDArray | None, positive: Any) -> float:
        """The threshold; NaN, with a warning, if probabilities refer to other class shares now."""
        same = prior is self.prior or (
            prior is not None and self.prior is not None and np.allclose(prior, self.prior)
        )
        if not same and positive in self.thresholds:
            warn(
                "The threshold of this saved model refers to another prior than the one that is "
                "set now, and the predictions by which it could be chosen anew were not saved: "
                "there is none. Set the prior as it was, or save the model with "
                "training__pickle_validation=True.",
                UserWarning,
            )
            return np.nan
        return self.thresholds.get(positive, np.nan)
