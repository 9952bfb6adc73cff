"""Number of torch's threads by the amount of work alone, so that results do not depend on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 2**18  # values in a step (patches x features), for which threads cost more than they bring


class _Process:
    """Number of threads that the process has set, while pieces of work set their own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_inside = 0
        self.n_threads = 1

    def enter(self) -> int:
        """Number of threads outside of all work."""
        with self.lock:
            if self.n_inside == 0:
                self.n_threads = torch.get_num_threads()
            self.n_inside += 1
            return self.n_threads

    def leave(self) -> None:
        with self.lock:
            self.n_inside -= 1


_PROCESS = _Process()
_HERE = threading.local()  # torch keeps the number for each thread of Python


@contextmanager
def threads_for(n_values: int) -> Iterator[None]:
    """Run one piece of work, with a step of `n_values` features, on its own number of threads.

    Sums are added in an order that depends on the number of threads, which is another in a worker
    process of joblib. A small step therefore takes one thread, whatever the process has set; a
    large one takes what the process has set.
    """
    of_process = _PROCESS.enter()
    # A thread that starts during other work copies the number of that work.
    before = torch.get_num_threads() if getattr(_HERE, "inside", False) else of_process
    nested, _HERE.inside = getattr(_HERE, "inside", False), True
    try:
        _use(1 if n_values <= SMALL else of_process)
        yield
    finally:
        _use(before)
        _HERE.inside = nested
        _PROCESS.leave()


def _use(n_threads: int) -> None:
    if torch.get_num_threads() != n_threads:
        torch.set_num_threads(n_threads)
