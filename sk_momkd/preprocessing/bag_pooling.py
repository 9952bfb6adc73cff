"""Pooling of each bag into one row, for classifiers that take no bags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from ..bag_warnings import together
from ..data.arrays import check_n_features
from ..data.sequence import BagSequence
from ..data.validation import check_bags
from .slide_index import indexed_by_slide

_STATISTICS: dict[str, Callable[..., NDArray]] = {"mean": np.mean, "std": np.std, "max": np.max}
_CHOICES = {"mean", "mean+std", "max", "mean+max"}


def pool(features: NDArray, statistics: str) -> NDArray:
    """Statistics over the patches of a bag, computed in float64.

    Parameters
    ----------
    features : ndarray of shape (n_instances, n_features)
    statistics : str
        As of :class:`BagPooling`.

    Returns
    -------
    float64 ndarray of shape (n_features * number of statistics,)
    """
    wide = features.astype(np.float64, copy=False)
    return np.concatenate([_STATISTICS[name](wide, axis=0) for name in statistics.split("+")])


class BagPooling(TransformerMixin, BaseEstimator):
    """Pool the patches of each bag into one row; nothing is learned.

    ``make_pipeline(BagPooling(), StandardScaler(), LogisticRegression())`` is the baseline that a
    method of multiple instance learning has to beat.

    Parameters
    ----------
    statistics : {"mean", "mean+std", "max", "mean+max"}, default="mean"
        Statistics over the patches of a bag, feature by feature. Columns of two statistics are
        concatenated.

    Attributes
    ----------
    n_features_in_ : int
        Number of features of each patch.
    training_patients_ : HashedIds
        Ids of the patients and slides that were given to `fit`, as hashes under a random key, by
        which :func:`evaluate_external` and :func:`prediction_table` know them again.

    See Also
    --------
    ABMILClassifier : Pools with learned attention.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import BagPooling
    >>> BagPooling("mean+max").fit_transform([np.array([[1.0, 0.0], [3.0, 4.0]]), np.ones((5, 2))])
    array([[2., 2., 3., 4.],
           [1., 1., 1., 1.]])
    """

    _fitted: ClassVar[tuple[str, ...]] = ("bag_info_", "training_patients_")

    _parameter_constraints: ClassVar[dict[str, Any]] = {"statistics": [StrOptions(_CHOICES)]}

    def __init__(self, statistics: str = "mean") -> None:
        self.statistics = statistics

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameter and learn the number of features.

        Parameters
        ----------
        X : bags in any form that `fit` of a classifier accepts
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `statistics` is unknown, or there are no bags.
        """
        self._validate_params()
        check_bags(self, X, reset=True)
        return self

    def transform(self, X: Any) -> Any:
        """Pool each bag; files are read one after the other.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_features_in_ * number of statistics), float64
            With ``set_output(transform="pandas")`` a DataFrame with the ids of the bags as index.

        Raises
        ------
        BagError
            If a bag has another number of features than those of `fit`; names it.
        """
        check_is_fitted(self)
        bags = check_bags(self, X, reset=False)
        with together():
            pooled = np.stack([self._pool(bags, i) for i in range(len(bags))])
        return indexed_by_slide(self, bags, pooled)

    def _pool(self, bags: BagSequence, i: int) -> NDArray:
        features = bags.load(i).features
        check_n_features(
            features.shape[1], bags.name(i), self.n_features_in_, "BagPooling is expecting"
        )
        return pool(features, self.statistics)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray:
        """Names of the columns of `transform`.

        Parameters
        ----------
        input_features : list of str, optional
            Names of the features; by default their numbers.

        Returns
        -------
        object ndarray
            ``<statistic>_<feature>`` of each column.
        """
        check_is_fitted(self)
        features = range(self.n_features_in_) if input_features is None else input_features
        names = [f"{name}_{x}" for name in self.statistics.split("+") for x in features]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features are read as float32
        return tags
