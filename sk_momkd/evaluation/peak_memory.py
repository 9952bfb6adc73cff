"""Peak memory of a block of code."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
from types import TracebackType

import psutil

_MIB = 2**20


class PeakMemory:
    """Measures the most memory that this process holds while a block runs.

    On entry all garbage is collected, and memory that earlier work has freed is given back to the
    system if the allocator can do so (glibc). Otherwise the block would use it again and seem to
    need less. This takes about a tenth of a second, or more in a large process.

    Parameters
    ----------
    interval : float, default=0.02
        Seconds between two readings; a peak that is shorter may be missed.

    Attributes
    ----------
    mib : float
        Largest resident memory during the block minus that at its start, in MiB. It counts all
        threads of the process, but no child processes and no GPU. NaN before the block.

    Examples
    --------
    >>> from sk_momkd.evaluation.peak_memory import PeakMemory
    >>> with PeakMemory() as peak:
    ...     held = bytearray(2**26)
    >>> 60 < peak.mib < 80
    True
    """

    def __init__(self, interval: float = 0.02) -> None:
        self.interval = interval
        self.mib = math.nan

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
        self.mib = 0.0
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            self._look()

    def _look(self) -> None:
        held = self._process.memory_info().rss - self._before
        self.mib = max(self.mib, held / _MIB)
