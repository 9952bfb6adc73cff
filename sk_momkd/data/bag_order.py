"""Labels and groups that carry ids: in the order of the bags, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import column_or_1d

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
        If the index has the ids of some bags only, has an id twice or not once for each bag, or
        might be row numbers as well as ids.
    """
    values = _unmasked(values)
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1:
        values = values.iloc[:, 0]
    if not isinstance(values, pd.Series) or bags is None:
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
        if len(values) != len(bags):
            return values
        raise CohortError(
            f"The index of {what} holds the ids of {len(shared)} bags in another order than the "
            f"bags, but it may also be row numbers. If it holds ids, name it, {what}.rename_axis("
            f"'slide_id'); if {what} is in the order of the bags, pass {what}.to_numpy()."
        )
    if set(ids) != set(index) or repeated(index) or len(index) != len(ids):
        _refuse(index, ids, what, "bags.ids" if ids is candidates[0] else "bags.patient_ids")
    return values.set_axis(index).loc[ids]


def _refuse(index: list[str], ids: list[Any], what: str, where: str) -> None:
    twice, lacking = repeated(index), [i for i in ids if i not in set(index)]
    other = [i for i in index if i not in set(ids)]
    parts = [f"no entry for {first_few(lacking)}"] if lacking else []
    parts += [f"entries for {first_few(other)}, which are no bags"] if other else []
    parts += [f"several entries for {first_few(twice)}"] if twice else []
    parts += [f"{len(index)} entries for {len(ids)} bags"] if len(index) != len(ids) else []
    raise CohortError(
        f"The index of {what} holds ids of bags, but does not fit the bags: {'; '.join(parts)}. "
        f"Take {what}.loc[{where}], or {what}.to_numpy() if it is in the order of the bags."
    )


def labels_in_bag_order(y: Any, bags: BagSequence | None) -> NDArray:
    """One label for each bag, in one dimension; ids are joined as by :func:`in_bag_order`.

    Raises
    ------
    CohortError
        As :func:`in_bag_order` does.
    ValueError
        If `y` is no sequence, has two dimensions, or holds text beside other labels, which have no
        common order.
    """
    y = in_bag_order(y, bags, "y")
    if isinstance(y, Mapping | Set | Iterator):
        raise ValueError(
            f"y is a {type(y).__name__}, expected a sequence with the label of each bag in their "
            "order, or a Series with the ids of the bags as index, e.g. pd.Series(labels_by_id)."
        )
    labels = column_or_1d(_plain(y), warn=True)
    if labels.dtype == object or isinstance(y, list | tuple):  # numpy makes texts of a mixed list
        known = [v for v in (y if isinstance(y, list | tuple) else labels) if not pd.isna(v)]
        text = next((v for v in known if isinstance(v, str)), None)
        other = next((v for v in known if not isinstance(v, str)), None)
        if text is not None and other is not None:
            raise ValueError(
                f"y holds labels of several types, such as {text!r} (str) and {other!r} "
                f"({type(other).__name__}). Write all in one way, e.g. [str(v) for v in y]."
            )
    return labels


def _unmasked(values: Any) -> Any:
    """A masked array with its masked entries as missing ones instead of its fill value."""
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return values
    plain = np.asarray(values.data, dtype=object)
    plain[np.ma.getmaskarray(values)] = None
    return plain


def _plain(y: Any) -> Any:
    """Convert labels of pandas types, or objects of one type, to an array of numpy's type."""
    convertible = isinstance(y, pd.Series) or (isinstance(y, np.ndarray) and y.dtype == object)
    if not convertible or y.ndim != 1 or pd.isna(y).any() or len({type(v) for v in y}) > 1:
        return y
    return np.array(list(y))
