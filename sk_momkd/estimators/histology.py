"""Classifiers that learn from slides and labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from .base import BaseMILClassifier


@dataclass(kw_only=True, eq=False, repr=False)
class HistologyClassifier(BaseMILClassifier):
    """Base of classifiers that have no use for omics; their `fit` takes none."""

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on bags and their labels.

        Parameters
        ----------
        X : BagSequence, list of Bag, of arrays, of (features, coords) or of PyG ``Data``, array \
of shape (n_bags, n_instances, n_features) or (n_bags, n_features)
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        groups : array-like of shape (n_bags,), optional
            The inner validation part takes whole groups (e.g. sites); by default patients.

        Returns
        -------
        self

        Raises
        ------
        BagError, LeakageError, ValueError
            Naming the bag or patient, what came, what was expected and how to mend it.
        """
        return self._fit(X, y, groups)
