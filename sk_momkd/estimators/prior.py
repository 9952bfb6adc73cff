"""Class shares of the population that probabilities refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bag_weights import draw_shares

_SUM_TOLERANCE = 1e-6


def class_shares(labels: NDArray, weights: NDArray | None, n_classes: int) -> NDArray:
    """Share of each class number, by weight where bags have weights."""
    totals = np.bincount(labels, weights, minlength=n_classes)
    return totals / totals.sum()


def shares_in_loss(
    labels: NDArray, weights: NDArray | None, sampler: str, n_classes: int
) -> NDArray:
    """Share of each class number among the slides that the sampler draws, by weight in the loss."""
    if weights is not None:
        return class_shares(labels, weights * draw_shares(labels, sampler), n_classes)
    if sampler == "balanced":
        return np.full(n_classes, 1 / n_classes)
    return class_shares(labels, None, n_classes)


def class_probabilities(prior: Any, classes: NDArray) -> NDArray:
    """Probabilities of the classes that a user gave, in the order of `classes`.

    Raises
    ------
    ValueError
        Unless there is one number above 0 for each class and they sum to one.
    """
    names = classes.tolist()
    if isinstance(prior, pd.Series) and not isinstance(prior.index, pd.RangeIndex):
        prior = prior.to_dict()  # as value_counts gives it, in an order of its own
    if isinstance(prior, Mapping):
        wrong = [name for name in (*prior, *names) if name not in prior or name not in names]
        if wrong:
            raise ValueError(
                f"prior has the classes {list(prior)}, expected one entry for each of {names}."
            )
        prior = [prior[name] for name in names]
    given = np.asarray(prior, dtype=np.float64)
    if given.shape != (len(names),) or not (given > 0).all():
        raise ValueError(
            f"prior={given.tolist()} must be one number above 0 for each of the classes "
            f"{names}, in this order."
        )
    if abs(given.sum() - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"prior={given.tolist()} sums to {given.sum():g}, expected 1: probabilities of the "
            f"classes {names}."
        )
    return given
