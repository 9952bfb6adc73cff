"""Distinguish an interrupt of the user from an exception by which a callback stops training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class EarlyStop(Exception):
    """Raised at the end of an epoch to stop training and keep what was learned."""


@contextmanager
def watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether the process has received an interrupt meanwhile.

    The handler that was installed before is called as ever. In other threads than the main one no
    interrupt arrives.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: False
        return
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        previous(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, previous)
