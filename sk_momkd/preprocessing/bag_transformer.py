"""What all transformers of bags share: bags stay bags, and are read one after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ..bag_warnings import warns_together
from ..data.arrays import check_n_features
from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError


class BagTransformer(TransformerMixin, BaseEstimator):
    """Base class of transformers from bags to bags: ids are kept, files stay files."""

    @abstractmethod
    def transform(self, X: Any) -> BagSequence:
        """Return `X` as bags that are changed when they are read."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Ignore `transform`: bags stay bags in a pipeline whose other steps return pandas."""
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def nonempty_bags(X: Any) -> BagSequence:
    """`X` as bags.

    Raises
    ------
    BagError
        If there are none, or `X` cannot be read as bags.
    """
    bags = as_bags(X)
    if len(bags) == 0:
        raise BagError("X holds no bags.")
    return bags


@warns_together
def features_of_one_width(bags: BagSequence) -> Generator[NDArray]:
    """Read the features of one bag after the other.

    Raises
    ------
    BagError
        If a bag has another number of features than those before it; names the first such bag.
    """
    width = None
    for i in range(len(bags)):
        features = bags.load(i).features
        width = width or features.shape[1]
        check_n_features(features.shape[1], bags.name(i), width, "the bags before it have")
        yield features
