"""Any scikit-learn transformer, applied to the patches of each bag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from ..data.sequence import BagSequence, as_bags
from .bag_transformer import BagTransformer, features_of_one_width, nonempty_bags

_CHUNK = 50_000  # patches that one call of partial_fit gets, at least


class InstanceTransformer(BagTransformer):
    """Apply a scikit-learn transformer to the patches of each bag.

    The transformer is fitted on the stacked patches of all training bags; inside a pipeline these
    are the bags of the training fold alone. Bags are transformed when they are read, so a cohort
    in files stays in files.

    Parameters
    ----------
    transformer : scikit-learn transformer
        It is cloned, then fitted on an array of shape (n_instances_of_all_bags, n_features) and,
        where `y` is given, on the label of each patch's bag. A transformer with ``partial_fit``
        is fitted on about 50,000 patches at a time, so the cohort is never in memory at once.

    Attributes
    ----------
    transformer_ : estimator
        The fitted clone of `transformer`.
    n_features_in_ : int
        Number of features of each patch.

    See Also
    --------
    InstanceStandardizer : Computes z-scores within each patient or site instead.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sk_momkd import InstanceTransformer
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[4.0]])]
    >>> InstanceTransformer(StandardScaler()).fit_transform(bags)[1].features.round(3)
    array([[1.225]], dtype=float32)
    """

    _fitted: ClassVar[tuple[str, ...]] = ("transformer_",)

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformer on the patches of all bags in `X`.

        Parameters
        ----------
        X : bags in any form that `fit` of a classifier accepts
        y : array-like of shape (n_bags,), optional
            Labels, for supervised transformers.

        Returns
        -------
        self

        Raises
        ------
        BagError
            If there are no bags, a bag is unusable, or bags differ in their number of features.
        """
        bags = nonempty_bags(X)
        self.transformer_ = clone(self.transformer)
        stepwise = hasattr(self.transformer_, "partial_fit")
        for features, labels in _chunks(bags, y, _CHUNK if stepwise else None):
            fit = self.transformer_.partial_fit if stepwise else self.transformer_.fit
            fit(features, labels)
            self.n_features_in_ = features.shape[1]
        return self

    def transform(self, X: Any) -> BagSequence:
        """Return bags whose features pass through the fitted transformer when they are read.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        BagSequence
        """
        check_is_fitted(self)
        return as_bags(X).map(self._transform_patches)

    def _transform_patches(self, features: NDArray) -> NDArray:
        values = self.transformer_.transform(features)
        return np.asarray(values.toarray() if sparse.issparse(values) else values)


def _chunks(
    bags: BagSequence, y: Any, size: int | None
) -> Iterator[tuple[NDArray, NDArray | None]]:
    """Patches of consecutive bags with their bags' labels, `size` or more at a time.

    A chunk is held back until the next is full, so that no chunk is a small remainder.
    """
    labels = None if y is None else np.asarray(y)
    ready: list[NDArray] = []
    growing: list[NDArray] = []
    start = 0
    for features in features_of_one_width(bags):
        growing.append(features)
        if size is None or sum(map(len, growing)) < size:
            continue
        if ready:
            yield _stacked(ready, labels, start)
            start += len(ready)
        ready, growing = growing, []
    yield _stacked(ready + growing, labels, start)


def _stacked(
    blocks: list[NDArray], labels: NDArray | None, start: int
) -> tuple[NDArray, NDArray | None]:
    sizes = [len(block) for block in blocks]
    repeated = None if labels is None else np.repeat(labels[start : start + len(blocks)], sizes)
    return np.concatenate(blocks), repeated
