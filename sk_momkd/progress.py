"""Progress bars on standard error, labelled by what they are part of."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

_LOGGER = logging.getLogger("sk_momkd.progress")
_LINES = 100  # about, of a bar in the log
_SHORTEST_PAUSE, _LONGEST_PAUSE = 10, 300  # seconds between two of them

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

    The logger "sk_momkd.progress" has a line every 10 seconds at most, in long runs about one per
    cent of the steps, and one at the end: INFO, or DEBUG inside `labelled`.

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


@cache
def _logged_bar() -> type[tqdm]:
    """Class of bars that also log how far they are."""
    from tqdm.auto import tqdm

    class LoggedBar(tqdm):
        """Counts where nothing is shown, too."""

        def __init__(self, *args: Any, desc: str, total: int, unit: str, **options: Any) -> None:
            self._logged = (desc, total, unit, logging.DEBUG if _LABELS.get() else logging.INFO)
            self._steps = self._steps_before = 0
            self._since = self._last = time.perf_counter()
            super().__init__(*args, desc=desc, total=total, unit=unit, **options)
            if self.disable:
                self.initial = 0

        def update(self, n: float | None = 1, *, source: str | None = None) -> bool | None:
            """Count steps; those of a `source` were done before, and the time left ignores them."""
            self._steps += int(n or 0)
            if source is not None:
                self.initial += int(n or 0)
                self._steps_before += int(n or 0)
                self._source = source
            else:
                self._tell_of_steps_before()
                self._tell_steps()
            return super().update(n)

        def close(self) -> None:
            self._tell_of_steps_before()
            super().close()

        def _tell_of_steps_before(self) -> None:
            if self._steps_before:
                title, total, unit, level = self._logged
                known = f"{title}: read {self._steps_before} of {total} {unit}s"
                _LOGGER.log(level, "%s from %s", known, self._source)
                self._steps_before = 0

        def _tell_steps(self) -> None:
            title, total, unit, level = self._logged
            now = time.perf_counter()
            passed = now - self._since
            left = passed / max(self._steps - self.initial, 1) * (total - self._steps)
            pause = min(max(_SHORTEST_PAUSE, (passed + left) / _LINES), _LONGEST_PAUSE)
            if self._steps < total and now - self._last < pause:
                return
            self._last = now
            so_far = f"{title}: {self._steps} of {total} {unit}s in {tqdm.format_interval(passed)}"
            rest = f", {tqdm.format_interval(left)} left" if self._steps < total else ""
            _LOGGER.log(level, "%s%s", so_far, rest)

    return LoggedBar
