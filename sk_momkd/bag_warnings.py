"""Warnings of single bags: a loop over bags gives out one per category, not one per bag."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from .messages import listed, warn

_P = ParamSpec("_P")
_T = TypeVar("_T")
_HELD: ContextVar[BagWarnings | None] = ContextVar("_HELD", default=None)


class BagWarnings:
    """What is found of bags while it is held, one bag after the other.

    Attributes
    ----------
    texts : dict
        By category, and then by name of the bag.
    """

    def __init__(self) -> None:
        self.texts: dict[type[Warning], dict[str, list[str]]] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, `warn_of_bag` adds to these warnings; in this thread only."""
        before = _HELD.set(self)
        try:
            yield
        finally:
            _HELD.reset(before)

    def add(self, name: str, text: str, category: type[Warning]) -> None:
        """Add what is said of a bag, once however often it is read."""
        of_bag = self.texts.setdefault(category, {}).setdefault(name, [])
        if text not in of_bag:
            of_bag.append(text)

    def take(self, others: BagWarnings) -> BagWarnings:
        """Add others; return those of bags of which nothing in this category was said before."""
        new = BagWarnings()
        for category, bags in others.texts.items():
            known = set(self.texts.get(category, ()))
            for name, texts in bags.items():
                for text in texts:
                    self.add(name, text, category)
                    if name not in known:
                        new.add(name, text, category)
        return new

    def warn(self) -> None:
        """Give out a warning per category, or hand all to the warnings that are held around."""
        if (around := _HELD.get()) is not None:
            around.take(self)
            return
        for category, bags in self.texts.items():
            (first, texts), *others = bags.items()
            alike = f" Likewise {len(others)} more: {listed(n for n, _ in others)}."
            warn(f"{first}: {' '.join(texts)}{alike if others else ''}", category)


def warn_of_bag(name: str, text: str, category: type[Warning]) -> None:
    """Warn of one bag, at once or together with others.

    Parameters
    ----------
    name : str
        How messages call the bag.
    text : str
        Whole sentences that follow the name and a colon.
    category : Warning class

    Examples
    --------
    >>> import warnings
    >>> found = BagWarnings()
    >>> with found.held():
    ...     for name in ("S1", "S2", "S3"):
    ...         warn_of_bag(name, "half of its patches are empty.", UserWarning)
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     found.warn()
    >>> [str(warning.message) for warning in caught]
    ['S1: half of its patches are empty. Likewise 2 more: S2, S3.']
    """
    if (around := _HELD.get()) is None:
        warn(f"{name}: {text}", category)
    else:
        around.add(name, text, category)


@contextmanager
def together() -> Iterator[None]:
    """Give out what is found of bags inside at the end, also if an error ends it."""
    found = BagWarnings()
    try:
        with found.held():
            yield
    finally:
        found.warn()


def warns_together(generator: Callable[_P, Generator[_T]]) -> Callable[_P, Generator[_T]]:
    """Decorate a generator: what it finds of bags is given out when it ends."""

    @wraps(generator)
    def decorated(*args: _P.args, **kwargs: _P.kwargs) -> Generator[_T]:
        found = BagWarnings()
        try:
            with closing(generator(*args, **kwargs)) as items, suppress(StopIteration):
                while True:
                    with found.held():  # not while the caller has its turn
                        item = next(items)
                    yield item
        finally:
            found.warn()

    return decorated
