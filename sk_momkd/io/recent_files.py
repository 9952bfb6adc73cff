"""Content of small bag files that were read before: a study reads each of them in every fit."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

from ..data.arrays import BagArrays
from .local_files import FileState, state_of
from .stored_copy import is_at_rest

_MAX_FILE, _MAX_TOTAL = 2**20, 2**27  # bytes; reading a larger file takes longer than opening it


class RecentFiles:
    """Arrays by file, which are given out as long as the file is the same; the oldest are dropped.

    Parameters
    ----------
    max_file, max_total : int
        Bytes of a file and of all arrays.
    """

    def __init__(self, max_file: int = _MAX_FILE, max_total: int = _MAX_TOTAL) -> None:
        self.max_file, self.max_total = max_file, max_total
        self._known: OrderedDict[Hashable, tuple[list[FileState], BagArrays]] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def read(
        self, key: Hashable, files: Sequence[str], read: Callable[[], tuple[BagArrays, bool]]
    ) -> BagArrays:
        """What `read` returns, or a copy of what it returned before if the files are the same.

        Parameters
        ----------
        key : hashable
            How the files are read.
        files : sequence of str
        read : callable
            Returns arrays, and whether they may be kept.

        Returns
        -------
        BagArrays
        """
        before = self._states(files)
        if before is None:
            return read()[0]
        with self._lock:
            states, arrays = self._known.get(key, (None, None))
            if arrays is not None and states == before:
                self._known.move_to_end(key)
                return _copy(arrays)
        arrays, may_be_kept = read()
        if may_be_kept and self._states(files) == before:
            self._keep(key, before, arrays)
        return arrays

    def _states(self, files: Sequence[str]) -> list[FileState] | None:
        """State of each file; None if one is large, changed just now or is no regular file."""
        try:
            found = [os.stat(file) for file in files]
        except OSError:
            return None
        small = sum(one.st_size for one in found) <= self.max_file
        settled = all(is_at_rest(max(one.st_mtime_ns, one.st_ctime_ns)) for one in found)
        regular = all(stat.S_ISREG(one.st_mode) for one in found)
        return [state_of(one) for one in found] if small and settled and regular else None

    def _keep(self, key: Hashable, states: list[FileState], arrays: BagArrays) -> None:
        if _n_bytes(arrays) > self.max_total:  # for which all others would be dropped
            return
        with self._lock:
            self._drop(key)
            self._known[key] = states, _copy(arrays)
            self._total += _n_bytes(arrays)
            while self._total > self.max_total:
                self._drop(next(iter(self._known)))

    def _drop(self, key: Hashable) -> None:
        _, arrays = self._known.pop(key, (None, None))
        self._total -= 0 if arrays is None else _n_bytes(arrays)


def _copy(arrays: BagArrays) -> BagArrays:
    others = [None if array is None else array.copy() for array in arrays[1:]]
    return BagArrays(arrays.features.copy(), *others)


def _n_bytes(arrays: BagArrays) -> int:
    return sum(array.nbytes for array in arrays if array is not None)
