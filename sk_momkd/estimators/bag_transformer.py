"""What every transformer from bags to bags shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError


class BagTransformer(TransformerMixin, BaseEstimator):
    """Transformer of bags that stay bags: ids are kept, files stay files."""

    @abstractmethod
    def transform(self, X: Any) -> BagSequence:
        """Bags that are changed when they are read."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Bags stay bags, whatever container the rest of a pipeline puts out."""
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def some_bags(X: Any) -> BagSequence:
    """`X` as bags, of which there must be one or more."""
    bags = as_bags(X)
    if len(bags) == 0:
        raise BagError("X holds no bags.")
    return bags


def features_of_one_width(bags: BagSequence) -> Iterator[NDArray]:
    """Features of one bag after the other.

    Raises
    ------
    BagError
        Naming the first bag of another width than those before it.
    """
    width = None
    for i in range(len(bags)):
        features = bags.load(i).features
        width = width or features.shape[1]
        if features.shape[1] != width:
            raise BagError(
                f"{bags.name(i)} has {features.shape[1]} features, the bags before it have "
                f"{width}. Extract all slides with one encoder."
            )
        yield features
