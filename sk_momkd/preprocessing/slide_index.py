"""Transformed bags as a table with the slide ids as index, where pandas output is asked for."""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import NDArray
from sklearn import get_config

from ..data.sequence import BagSequence


def indexed_by_slide(transformer: Any, bags: BagSequence, values: NDArray) -> Any:
    """`values`, or a DataFrame of them with ids as index after ``set_output(transform="pandas")``.

    scikit-learn takes the index from a table that comes in, and bags are none. A bag without an id
    has its name in messages. Other containers, which have no index, are made by scikit-learn.
    """
    own = getattr(transformer, "_sklearn_output_config", {}).get("transform")
    if (own or get_config()["transform_output"]) != "pandas":
        return values
    ids = [bags.name(i) if bag.bag_id is None else bag.bag_id for i, bag in enumerate(bags)]
    return pd.DataFrame(values, pd.Index(ids, dtype=object), transformer.get_feature_names_out())
