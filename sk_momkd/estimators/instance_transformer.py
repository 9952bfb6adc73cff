"""Any scikit-learn transformer, applied to the patches of bags."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError


class InstanceTransformer(TransformerMixin, BaseEstimator):
    """Fit a transformer on the stacked patches of the training bags, apply it to each bag.

    Inside a pipeline it is fitted in the training fold alone. Bags are transformed when they are
    read, so a cohort in files stays in files.

    Parameters
    ----------
    transformer : scikit-learn transformer
        Cloned, then fitted on an array of shape (n_instances_of_all_bags, n_features), and on
        the label of each patch's bag where `y` is given.

    Attributes
    ----------
    transformer_ : the fitted clone
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sk_momkd import InstanceTransformer
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[4.0]])]
    >>> InstanceTransformer(StandardScaler()).fit_transform(bags)[1].features.round(3)
    array([[1.225]], dtype=float32)
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on the patches of all bags in `X`.

        Raises
        ------
        BagError
            If a bag is unusable or the bags differ in width.
        """
        bags = as_bags(X)
        if len(bags) == 0:
            raise BagError("X holds no bags.")
        blocks = [bags.load(i).features for i in range(len(bags))]
        widths = [block.shape[1] for block in blocks]
        odd = np.flatnonzero(np.array(widths) != widths[0])
        if len(odd):
            raise BagError(
                f"{bags.name(odd[0])} has {widths[odd[0]]} features, {bags.name(0)} has "
                f"{widths[0]}. Extract all slides with one encoder."
            )
        self.n_features_in_ = widths[0]
        labels = None if y is None else np.repeat(np.asarray(y), [len(b) for b in blocks])
        self.transformer_ = clone(self.transformer).fit(np.concatenate(blocks), labels)
        return self

    def transform(self, X: Any) -> BagSequence:
        """`X` as a BagSequence whose features pass through the fitted transformer when read."""
        check_is_fitted(self)
        return as_bags(X).map(self._transform_patches)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Bags stay bags, whatever container the rest of a pipeline puts out."""
        return self

    def _transform_patches(self, features: NDArray) -> NDArray:
        values = self.transformer_.transform(features)
        return np.asarray(values.toarray() if sparse.issparse(values) else values)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
