"""Weights of bags in the loss, from `sample_weight`, `class_weight` and what the sampler draws."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..training.batches import LossWeights


def check_class_weight(class_weight: Any, classes: NDArray) -> None:
    """Raise unless a dict of class weights has numbers above 0 for some of the `classes` alone.

    Raises
    ------
    ValueError
    """
    if not isinstance(class_weight, Mapping):
        return
    names = classes.tolist()
    if unknown := [name for name in class_weight if name not in names]:
        raise ValueError(f"class_weight has {unknown}, which y does not; its classes are {names}.")
    for name, weight in class_weight.items():
        if not isinstance(weight, Real) or not 0 < float(weight) < np.inf:
            raise ValueError(
                f"class_weight of {name!r} must be a number above 0, got {weight!r}. To leave a "
                "class out, leave out its bags."
            )


def loss_weights(
    labels: NDArray,
    sample_weight: NDArray | None,
    class_weight: Any,
    *,
    sampler: str,
    classes: NDArray,
    paired: NDArray | None = None,
) -> LossWeights | None:
    """Weights of the training bags in the loss; None where all weigh the same.

    A draw of the sampler has the mean weight 1, among all bags and among those with omics: so a
    weight is as good as copies of the bag where each bag is drawn once and a batch holds them all.
    Under the balanced sampler, weights of bags count relative to those of their class, which is
    drawn as often as any other.

    Parameters
    ----------
    labels : int ndarray of shape (n_bags,)
        Class numbers.
    sample_weight : ndarray of shape (n_bags,) or None
        Above 0.
    class_weight : {"balanced"}, dict of label to float, or None
    sampler : {"balanced", "shuffle"}
    classes : ndarray of shape (n_classes,)
        Labels by class number.
    paired : bool ndarray of shape (n_bags,), optional
        Which bags have omics; by default none.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    if sampler == "balanced" or class_weight == "balanced":
        weights = weights / np.bincount(labels, weights)[labels]
    if sampler == "balanced":
        weights = weights * np.bincount(labels)[labels]
    if isinstance(class_weight, Mapping):
        of_class = [float(class_weight.get(name, 1.0)) for name in classes.tolist()]
        weights = weights * np.array(of_class)[labels]
    drawn = draw_shares(labels, sampler)
    return LossWeights(
        _with_mean_one(weights, drawn),
        _with_mean_one(weights, drawn * (False if paired is None else paired)),
    )


def draw_shares(labels: NDArray, sampler: str) -> NDArray:
    """Probability with which the sampler draws each bag."""
    counts = np.bincount(labels)
    shares = 1 / counts[labels] if sampler == "balanced" else np.ones(len(labels))
    return shares / shares.sum()


def _with_mean_one(weights: NDArray, drawn: NDArray) -> NDArray:
    """Weights whose mean is 1 over draws with these shares; as given if nothing is drawn."""
    total = drawn.sum()
    mean = (weights * drawn).sum() / total if total else 1.0
    return (weights / mean).astype(np.float32)
