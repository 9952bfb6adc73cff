"""How error messages and reports list names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any


def first_few(names: Iterable[Any], n: int = 3) -> str:
    """List the first `n` names, quoted, and how many more there are.

    Examples
    --------
    >>> first_few(["S1", "S2", "S3", "S4", "S5"])
    "'S1', 'S2', 'S3' and 2 more"
    """
    names = list(names)
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(repr(str(name)) for name in names[:n]) + more


def repeated(names: Iterable[Hashable]) -> list[Any]:
    """Names that occur more than once, each one time, in the order of their first place.

    Examples
    --------
    >>> repeated(["S2", "S1", "S2", "S3", "S1"])
    ['S2', 'S1']
    """
    return [name for name, count in Counter(names).items() if count > 1]
