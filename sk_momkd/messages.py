"""How messages list names, and which line a warning names."""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable
from importlib.metadata import PackageNotFoundError, requires
from types import FrameType
from typing import Any

_NAME = re.compile(r"[\w.-]+")
# Packages whose lines are not the user's.
_BETWEEN = frozenset({"sk_momkd", "sklearn", "joblib", "skorch", "contextlib", "functools"})


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the line of the user's that led here, however deep the call is.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     warn("2 slides have no label.")
    >>> str(caught[0].message)
    '2 slides have no label.'
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def first_few(names: Iterable[Any], n: int = 3) -> str:
    """List the first `n` names, quoted, and how many more there are.

    Examples
    --------
    >>> first_few(["S1", "S2", "S3", "S4", "S5"])
    "'S1', 'S2', 'S3' and 2 more"
    """
    return listed((repr(str(name)) for name in names), n)


def listed(names: Iterable[str], n: int = 3) -> str:
    """List the first `n` names as they are, and how many more there are.

    Examples
    --------
    >>> listed(["bag 'S1'", "bag 'S2'"], n=1)
    "bag 'S1' and 1 more"
    """
    names = list(names)
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more


def repeated(names: Iterable[Hashable]) -> list[Any]:
    """Names that occur more than once, each one time, in the order of their first place.

    Examples
    --------
    >>> repeated(["S2", "S1", "S2", "S3", "S1"])
    ['S2', 'S1']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def install_hint(*packages: str) -> str:
    """Command that installs optional packages, with the versions that this package asks for.

    It names the packages themselves and not an extra of this one, whose name on an index could
    belong to someone else.

    Examples
    --------
    >>> install_hint("jinja2")[:19]
    "pip install 'jinja2"
    """
    try:
        asked = requires(__package__) or []
    except PackageNotFoundError:  # it is run from its sources
        asked = []
    bounds = {_NAME.match(text)[0]: text.partition(";")[0].strip() for text in asked}  # type: ignore[index]
    return "pip install " + " ".join(f"'{bounds.get(name, name)}'" for name in packages)
