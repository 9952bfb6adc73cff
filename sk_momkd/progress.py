"""Progress bars on standard error, labelled by what they are part of."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

_LOGGER = logging.getLogger("sk_momkd.progress")

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

    Each step is also a line of the logger "sk_momkd.progress": INFO, or DEBUG inside `labelled`.

    Parameters
    ----------
    total : int
    unit : str
    title : str
    shown : bool, optional
        By default, whether standard error is a terminal.
    """
    labels = _LABELS.get()
    return _logged_bar()(
        total=total,
        unit=unit,
        desc=", ".join((*labels, title)),
        disable=None if shown is None else not shown,
        leave=not labels,
        smoothing=0,
        dynamic_ncols=True,
    )


def one_by_one(calls: Iterable[Any], n_jobs: int | None) -> Generator[Any]:
    """Results of joblib's delayed calls in their order, each as soon as it is there.

    A backend that gives out nothing before all calls have ended is waited for.
    """
    from joblib.parallel import get_active_backend
    from sklearn.utils.parallel import Parallel

    streams = getattr(get_active_backend()[0], "supports_return_generator", False)
    yield from Parallel(n_jobs=n_jobs, return_as="generator" if streams else "list")(calls)


@cache
def _logged_bar() -> type[tqdm]:
    """Class of bars that also log their steps."""
    from tqdm.auto import tqdm

    class LoggedBar(tqdm):
        """Counts where nothing is shown, too."""

        def __init__(self, *args: Any, desc: str, total: int, unit: str, **options: Any) -> None:
            self._logged = (desc, total, unit, logging.DEBUG if _LABELS.get() else logging.INFO)
            self._steps, self._since = 0, time.perf_counter()
            super().__init__(*args, desc=desc, total=total, unit=unit, **options)
            if self.disable:
                self.initial = 0  # steps that were done before, and took no time here

        def update(self, n: float | None = 1) -> bool | None:
            """Count, and log how long the rest will take."""
            self._steps += int(n or 0)
            title, total, unit, level = self._logged
            passed = time.perf_counter() - self._since
            left = passed / max(self._steps - self.initial, 1) * (total - self._steps)
            times = f"{tqdm.format_interval(passed)}, {tqdm.format_interval(left)} left"
            _LOGGER.log(level, "%s: %d of %d %ss, %s", title, self._steps, total, unit, times)
            return super().update(n)

    return LoggedBar
