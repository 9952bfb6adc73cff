"""Progress bars on standard error, labelled by what they are part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

_LABELS: ContextVar[tuple[str, ...]] = ContextVar("labels", default=())


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """Bars that start inside begin with `label`, e.g. "fold 2 of 5"; an empty one adds nothing."""
    token = _LABELS.set((*_LABELS.get(), label) if label else _LABELS.get())
    try:
        yield
    finally:
        _LABELS.reset(token)


def progress_bar(total: int, unit: str, title: str, *, shown: bool | None = None) -> tqdm:
    """A bar with the time left. Inside :func:`labelled` it vanishes when it is closed.

    Parameters
    ----------
    total : int
    unit : str
    title : str
    shown : bool, optional
        By default, whether standard error is a terminal.
    """
    from tqdm.auto import tqdm

    labels = _LABELS.get()
    return tqdm(
        total=total,
        unit=unit,
        desc=", ".join((*labels, title)),
        disable=None if shown is None else not shown,
        leave=not labels,
        smoothing=0,
        dynamic_ncols=True,
    )
