"""What labels 1 and 0 were in the table that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .bag import Bag


class CodedLabel(NamedTuple):
    """A label, the text in the table that it stands for, and the column."""

    label: Any
    text: str
    column: str


def label_names(bags: Iterable[Bag], y: Sequence[Any]) -> dict[Any, str]:
    """For each label of `y` what it was in the table, e.g. ``{1: "'Positive' of 'HER2'"}``.

    It is known for bags of :func:`load_cohort` with `positive`, as long as `y` are their labels;
    empty for others, so that labels of another column never get these names.

    Examples
    --------
    >>> import numpy as np
    >>> bag = Bag(np.ones((1, 2))).with_label(CodedLabel(1, "Positive", "HER2"))
    >>> label_names([bag], [1]), label_names([bag], [0])
    ({1: "'Positive' of 'HER2'"}, {})
    """
    found: dict[Any, dict[str, None]] = {}
    columns = set()
    for bag, label in zip(bags, y, strict=True):
        for slide in bag.slides:
            coded = slide.coded_label
            if coded is None or coded.label != label:
                return {}
            found.setdefault(coded.label, {})[coded.text] = None
            columns.add(coded.column)
    if len(columns) != 1:
        return {}
    column = columns.pop()
    return {k: f"{' or '.join(map(repr, texts))} of {column!r}" for k, texts in found.items()}
