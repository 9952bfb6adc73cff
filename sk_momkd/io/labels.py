"""Labels of slides from a column of the cohort's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..exceptions import CohortError
from ..messages import first_few
from .tables import integers_where_possible

_UNKNOWN = (  # values that are never a negative
    *("?", "na", "n/a", "nan", "missing", "unknown", "equivocal", "indeterminate"),
    *("not available", "not evaluated", "not performed", "not done"),
)


def _require_distinct(found: list[Any], column: str) -> None:
    """Raise if two values differ only in letter case or in the spaces around them."""
    first: dict[str, Any] = {}
    for value in found:
        other = first.setdefault(str(value).strip().casefold(), value)
        if other is not value:
            raise CohortError(
                f"Column {column!r} holds both {other!r} and {value!r}, which would be two "
                f"classes. Map each value, e.g. positive={{{other!r}: 1, {value!r}: 1, ...}}."
            )


def _binary(found: list[Any], positive: Any, column: str) -> dict[Any, int]:
    """1 for the positive one of two values, 0 for the other, which must not mean "unknown"."""
    hits = [value for value in found if value == positive or str(value) == str(positive)]
    if len(hits) != 1 or len(found) != 2:
        raise CohortError(
            f"Column {column!r} holds {first_few(found, 8)}; with positive={positive!r} it must "
            "hold that value and one other. Map each value instead, None to leave it out: "
            "positive={'Positive': 1, 'Negative': 0, 'Equivocal': None}."
        )
    other = next(value for value in found if value != hits[0])
    if str(other).strip(" []()").casefold() in _UNKNOWN:
        raise CohortError(
            f"Column {column!r} holds {hits[0]!r} and {other!r}, which is no negative. Map each "
            f"value, None to leave it out: positive={{{hits[0]!r}: 1, {other!r}: None, ...}}."
        )
    return {hits[0]: 1, other: 0}


def map_labels(values: pd.Series, positive: Any, column: str) -> pd.Series:
    """Label of each slide, None where it is to be left out.

    Parameters
    ----------
    values : Series
    positive : scalar, mapping or None
        As in :func:`load_cohort`.
    column : str
        Name of the column, for messages.

    Raises
    ------
    CohortError
        If `positive` does not fit the values, or two values differ only in case or spaces.
    """
    known = integers_where_possible(values.dropna())
    found = list(pd.unique(known))
    if not isinstance(positive, Mapping):
        _require_distinct(found, column)
    if positive is None:
        return known.astype(object).reindex(values.index)
    if not isinstance(positive, Mapping):
        positive = _binary(found, positive, column)
    uncovered = [value for value in found if value not in positive]
    if uncovered:
        raise CohortError(
            f"Column {column!r} holds values that `positive` does not map: {first_few(uncovered)}. "
            "Give each a label, or None to leave its slides out."
        )
    labels = [positive[value] for value in known]  # map() would turn 1, 0, None into floats
    return pd.Series(labels, index=known.index, dtype=object).reindex(values.index)
