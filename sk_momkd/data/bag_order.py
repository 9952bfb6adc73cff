"""Labels and groups that carry ids: in the order of the bags, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..exceptions import CohortError
from ..messages import first_few, repeated
from .ids import counts_rows, is_numeric_index, normalise_id
from .sequence import BagSequence


def in_bag_order(values: Any, bags: BagSequence | None, what: str) -> Any:
    """`values` in the order of `bags`, joined by id if they are a Series with the bags' ids.

    An index that holds ids of slides or patients of the bags is joined. Any other index, such as
    row numbers, does not count: then the order is that of the bags, as everywhere in scikit-learn.
    Masked entries of an array become missing.

    Parameters
    ----------
    values : Series, DataFrame of one column, array-like, or None
    bags : BagSequence or None
    what : str
        Name of the argument, for messages.

    Raises
    ------
    CohortError
        If the index has the ids of some bags only, has an id twice, or might be row numbers as
        well as ids.
    """
    values = _unmasked(values)
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1:
        values = values.iloc[:, 0]
    if not isinstance(values, pd.Series) or bags is None or len(values) != len(bags):
        return values
    if values.index.nlevels > 1 or isinstance(values.index, pd.RangeIndex):
        return values
    index = [normalise_id(name) for name in values.index]
    candidates = [ids.tolist() for ids in (bags.ids, bags.patient_ids)]
    if index in candidates:
        return values
    ids = max(candidates, key=lambda ids: len(set(ids).intersection(index)))
    shared = set(ids).intersection(index)
    if not shared:
        return values
    if is_numeric_index(values.index) and counts_rows(values.index):
        raise CohortError(
            f"The index of {what} holds the ids of {len(shared)} bags in another order than the "
            f"bags, but it may also be row numbers. If it holds ids, name it, {what}.rename_axis("
            f"'slide_id'); if {what} is in the order of the bags, pass {what}.to_numpy()."
        )
    if set(ids) != set(index) or repeated(index):
        _refuse(index, ids, what)
    return values.set_axis(index).loc[ids]


def _refuse(index: list[str], ids: list[Any], what: str) -> None:
    twice, lacking = repeated(index), [i for i in ids if i not in set(index)]
    other = [i for i in index if i not in set(ids)]
    parts = [f"no entry for {first_few(lacking)}"] if lacking else []
    parts += [f"entries for {first_few(other)}, which are no bags"] if other else []
    parts += [f"several entries for {first_few(twice)}"] if twice else []
    raise CohortError(
        f"The index of {what} holds ids of bags, but does not fit the bags: {'; '.join(parts)}. "
        f"Take {what}.loc[bags.ids], or {what}.to_numpy() if it is in the order of the bags."
    )


def _unmasked(values: Any) -> Any:
    """A masked array with its masked entries as missing ones instead of its fill value."""
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return values
    plain = np.asarray(values.data, dtype=object)
    plain[np.ma.getmaskarray(values)] = None
    return plain
