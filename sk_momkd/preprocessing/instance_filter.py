"""A filter of patches: a detector decides which patches of a bag are kept."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted

from ..bag_warnings import together
from ..data.arrays import BagArrays
from ..data.sequence import BagSequence, as_bags
from .bag_transformer import BagTransformer, features_of_one_width, nonempty_bags


class InstanceFilter(BagTransformer):
    """Keep the patches that a detector predicts as 1.

    The detector is fitted on patches of the training bags; inside a pipeline these are the bags of
    the training fold alone. Patches are dropped when a bag is read, so a cohort in files stays in
    files. Features, coordinates and ``slide_index`` of dropped patches are removed, and a stored
    graph keeps the edges between kept patches. A graph of spatial neighbours is built from the
    kept patches. Ids and labels do not change, so omics is joined as before.

    Parameters
    ----------
    detector : estimator with ``fit`` and ``predict``
        Predicts 1 for patches to keep and -1 or 0 for the others: `BackgroundDetector`,
        scikit-learn's `IsolationForest` and the like, or a classifier of patches that was fitted
        before, as ``FrozenEstimator(classifier)``. It is cloned and never gets labels of bags.
    max_patches : int or None, default=10_000
        Number of patches that are drawn to fit the detector, equally many from each bag (all of a
        small bag). None takes all patches and holds the whole cohort in memory.
    random_state : int, RandomState or None, default=None
        Controls which patches are drawn.

    Attributes
    ----------
    detector_ : estimator
        The fitted clone of `detector`.
    dropped_fraction_ : float
        Fraction of the drawn training patches that the detector drops.
    n_features_in_ : int
        Number of features of each patch.

    See Also
    --------
    BackgroundDetector : Finds bare glass by its near-identical features.
    TissueMaskFilter : Keeps the patches inside polygons of tissue.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import BackgroundDetector, Bag, InstanceFilter
    >>> random = np.random.default_rng(0)
    >>> tissue, glass = random.normal(size=(80, 8)), 3 + 0.01 * random.normal(size=(20, 8))
    >>> bags = [Bag(np.concatenate([tissue, glass]), bag_id="S1")]
    >>> kept = InstanceFilter(BackgroundDetector()).fit(bags)
    >>> kept.transform(bags)[0].n_instances
    80
    >>> kept.counts(bags)
        n_instances  n_kept
    S1          100      80
    """

    _fitted: ClassVar[tuple[str, ...]] = ("detector_", "dropped_fraction_")

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detector": [HasMethods(["fit", "predict"])],
        "max_patches": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self, detector: Any, *, max_patches: int | None = 10_000, random_state: Any = None
    ) -> None:
        self.detector = detector
        self.max_patches = max_patches
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on patches of the bags in `X`.

        Parameters
        ----------
        X : bags in any form that `fit` of a classifier accepts
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        BagError
            If there are no bags, a bag is unusable, or bags differ in their number of features.
        TypeError
            If the detector is a classifier that is not frozen.
        ValueError
            If a parameter is out of range, or the detector predicts other values than 1, 0 and -1.
        """
        self._validate_params()
        if is_classifier(self.detector) and not isinstance(self.detector, FrozenEstimator):
            raise TypeError(
                f"{type(self.detector).__name__} learns from labels of patches, but bags have one "
                "label each. Fit it on labelled patches first and pass FrozenEstimator(classifier)."
            )
        patches = self._draw(nonempty_bags(X))
        self.n_features_in_ = patches.shape[1]
        self.detector_ = clone(self.detector).fit(patches, None)
        self.dropped_fraction_ = float(1 - _is_kept(self.detector_, patches).mean())
        return self

    def transform(self, X: Any) -> BagSequence:
        """Return `X` without the dropped patches.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        BagSequence
            A bag that loses all its patches raises a `BagError` when it is read.
        """
        check_is_fitted(self)
        return as_bags(X).filter(partial(_keep, self.detector_))

    def counts(self, X: Any) -> pd.DataFrame:
        """Count the patches of each bag and those that are kept; reads all bags.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        DataFrame
            A row per bag, named by its id, with columns ``n_instances`` and ``n_kept``. A bag that
            loses all its patches has ``n_kept`` 0 here, although reading it raises.
        """
        check_is_fitted(self)
        bags = as_bags(X)
        with together():
            masks = [_keep(self.detector_, bags.load(i)) for i in range(len(bags))]
        return pd.DataFrame(
            {
                "n_instances": [len(mask) for mask in masks],
                "n_kept": [mask.sum() for mask in masks],
            },
            index=[bags.name(i) if b.bag_id is None else b.bag_id for i, b in enumerate(bags)],
        )

    def _draw(self, bags: BagSequence) -> NDArray:
        random = check_random_state(self.random_state)
        drawn = []
        for features in features_of_one_width(bags):
            share = len(features)
            if self.max_patches is not None:
                share = min(share, max(1, self.max_patches // len(bags)))
            rows = np.sort(random.choice(len(features), share, replace=False))
            drawn.append(features[rows])
        return np.concatenate(drawn)


def _keep(detector: Any, bag: BagArrays) -> NDArray:
    return _is_kept(detector, bag.features)


def _is_kept(detector: Any, features: NDArray) -> NDArray:
    predicted = np.asarray(detector.predict(features))
    unknown = [value for value in predicted.tolist() if value not in (-1, 0, 1)]
    if unknown:
        raise ValueError(
            f"{type(detector).__name__} predicts {unknown[0]!r}; expected 1 for patches to "
            "keep and -1 or 0 for the others."
        )
    return predicted == 1
