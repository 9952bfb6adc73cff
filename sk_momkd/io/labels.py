"""Labels of slides from a column of a table: which values are classes, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..exceptions import CohortError
from .tables import integers_where_possible, is_missing, value_counts

_MISSING_WORDS = {"na", "n/a", "#n/a", "<na>", "nan", "null"}  # as R, Excel and pandas write it
_NO_NEGATIVE = {  # values that are refused as the other one of two
    *("?", "missing", "unknown", "equivocal", "indeterminate", "not reported"),
    *("not available", "not evaluated", "not performed", "not done", "not applicable"),
}
_MAP = "positive={'Positive': 1, 'Negative': 0, 'Equivocal': None}"


class Labels(NamedTuple):
    """Label of each slide, None where it has none, and "used" or why it is left out."""

    values: pd.Series
    status: pd.Series


def parse_text(values: pd.Series) -> pd.Series:
    """A column of a file as numbers or booleans, if all its cells are written as such.

    Numbers with leading zeros stay text, and so do columns that write one number in two ways, as
    "1" and "1.0": they would be told apart here and merged there.
    """
    known = values[~(is_missing(values) | values.map(_is_missing_word))]
    spelled = known.str.casefold()
    if len(known) and spelled.isin(["true", "false"]).all():
        return (spelled == "true").astype(object).reindex(values.index)
    numbers = pd.to_numeric(known, errors="coerce")
    if not len(known) or not np.isfinite(numbers).all() or (numbers.nunique() != known.nunique()):
        return values
    if known.str.match(r"[+-]?0\d").any():
        return values
    whole = integers_where_possible(numbers.astype(float))
    parsed = whole.astype(object).reindex(values.index)
    return parsed.where(parsed.notna(), values)


def map_labels(values: pd.Series, positive: Any, negative: Any, column: str) -> Labels:
    """Label of each slide by the values of the column `column`.

    Parameters
    ----------
    values : Series
    positive, negative : scalar, list, mapping or None
        As in :func:`load_cohort`.
    column : str
        Name of the column, for messages.

    Raises
    ------
    CohortError
        If a value is neither positive nor negative nor left out on purpose, or two values are
        written almost alike; lists the values with their counts.
    """
    named = _named(positive) + _named(negative)
    word = values.map(_is_missing_word) & ~values.map(lambda v: any(_same(v, n) for n in named))
    missing = is_missing(values) | word
    known = integers_where_possible(values[~missing])
    mapping = _mapping(known, positive, negative, column)
    labels = [mapping[value] for value in known]  # map() would turn 1, 0, None into floats
    result = pd.Series(labels, index=known.index, dtype=object).reindex(values.index)
    status = np.select(
        [word, missing, result.isna()],
        [
            values.map(lambda value: f"no label in {column!r}, but {value!r}").astype(object),
            f"no label in {column!r}",
            values.map(lambda v: f"excluded by its label {_plain(v)!r} in {column!r}"),
        ],
        "used",
    )
    return Labels(result, pd.Series(status, index=values.index, dtype=object))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _named(given: Any) -> list[Any]:
    """The values that the caller names."""
    if given is None:
        return []
    several = (Mapping, list, tuple, set, frozenset, np.ndarray, pd.Index, pd.Series)
    return list(given) if isinstance(given, several) else [given]


def _is_missing_word(value: Any) -> bool:
    return isinstance(value, str) and value.strip().casefold() in _MISSING_WORDS


def _key(value: Any) -> str:
    """Text by which values are compared: "1.0", 1 and "1" are one number, "TRUE" is True."""
    text = str(value).strip()
    if text.casefold() in ("true", "false"):
        return text.casefold()
    try:
        number = Decimal(text)  # with all digits, as codes of SNOMED have more than six
    except InvalidOperation:
        return text
    return str(number.normalize()) if number.is_finite() and "_" not in text else text


def _same(value: Any, other: Any) -> bool:
    return _key(value) == _key(other)


def _mapping(known: pd.Series, positive: Any, negative: Any, column: str) -> dict[Any, Any]:
    """Label of each value, None for a value that is left out."""
    found = list(pd.unique(known))
    holds = f"Column {column!r} holds {value_counts(known) or 'no value'}"
    if isinstance(positive, Mapping):
        if negative is not None:
            raise CohortError("negative= is for a positive= that is a value; map it in positive=.")
        return _covered(found, positive, column, known)
    _require_distinct(found, column)
    if positive is None:
        if negative is not None:
            raise CohortError(f"negative={negative!r} needs positive=. {holds}.")
        return {value: value for value in found}
    return _binary(found, positive, negative, holds)


def _covered(
    found: list[Any], positive: Mapping[Any, Any], column: str, known: pd.Series
) -> dict[Any, Any]:
    by_key = {_key(value): label for value, label in positive.items()}
    exact = {(type(value), value): label for value, label in positive.items()}
    uncovered = known[[_key(value) not in by_key for value in known]]
    if len(uncovered):
        raise CohortError(
            f"Column {column!r} holds values that `positive` does not map: "
            f"{value_counts(uncovered)}. Give each a label, or None to leave its slides out."
        )
    return {value: exact.get((type(value), value), by_key[_key(value)]) for value in found}


def _require_distinct(found: list[Any], column: str) -> None:
    """Raise if two values differ only in letter case, outer spaces, or as "1" and "1.0" do."""
    first: dict[str, Any] = {}
    for value in map(_plain, found):
        other = first.setdefault(_key(value).casefold(), value)
        if other is not value:
            raise CohortError(
                f"Column {column!r} holds both {other!r} ({type(other).__name__}) and {value!r} "
                f"({type(value).__name__}), which would be two classes. Write them in one way, or "
                f"map each value: positive={{{other!r}: 1, {value!r}: 1, ...}}."
            )


def _binary(found: list[Any], positive: Any, negative: Any, holds: str) -> dict[Any, int | None]:
    """1 for positive values and 0 for negative ones; others are left out if both are named."""
    yes = [v for v in found if any(_same(v, p) for p in _named(positive))]
    no = [v for v in found if any(_same(v, n) for n in _named(negative))]
    rest = [v for v in found if v not in yes and v not in no]
    asked = f"with positive={positive!r}" + (
        f", negative={negative!r}" if negative is not None else ""
    )
    if not yes or (negative is not None and not no):
        lacking = f"positive={positive!r}" if not yes else f"negative={negative!r}"
        raise CohortError(f"{holds}; none of them is {lacking}. Values are compared exactly.")
    if both := [v for v in yes if v in no]:
        raise CohortError(f"{holds}; {asked}, {both[0]!r} would be both positive and negative.")
    if negative is None:
        no, rest = _only_other(rest, asked, holds), []
    return dict.fromkeys(yes, 1) | dict.fromkeys(no, 0) | dict.fromkeys(rest)


def _only_other(rest: list[Any], asked: str, holds: str) -> list[Any]:
    """The negative value, if there is one other than the positive one and it is no "unknown"."""
    if len(rest) != 1:
        raise CohortError(
            f"{holds}; {asked} it must hold that value and one other. Name the negatives with "
            f"negative=, the rest is left out; or map each value, None to leave it out: {_MAP}."
        )
    other = _plain(rest[0])
    if str(other).strip(" []()").casefold() in _NO_NEGATIVE | _MISSING_WORDS:
        raise CohortError(
            f"{holds}; {asked}, {other!r} would be the negative, but is no negative. If it is, say "
            f"negative={other!r}; else map each value, None to leave it out: {_MAP}."
        )
    return rest
