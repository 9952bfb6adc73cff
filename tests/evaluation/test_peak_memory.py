"""Most memory of a block."""

import math
import mmap
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from sk_momkd.evaluation.peak_memory import PeakMemory

MIB = 2**20


@contextmanager
def pages(mib):
    """Touched memory straight from the system; malloc may keep what an array gives back."""
    with mmap.mmap(-1, mib * MIB) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1
        yield


def test_what_is_let_go_within_the_block_counts():
    with PeakMemory() as peak:
        for mib in (40, 100, 50):
            with pages(mib):
                time.sleep(0.2)  # longer than between two looks
    assert peak.mib == pytest.approx(100, abs=10)


def test_what_was_there_before_does_not_count():
    with pages(100), PeakMemory() as peak, pages(40):
        time.sleep(0.2)
    assert peak.mib == pytest.approx(40, abs=10)


@pytest.mark.skipif(sys.platform != "linux", reason="needs malloc_trim")
def test_small_pieces_freed_before_are_not_used_unseen():
    pieces = [np.ones(64 * 1024, dtype=np.uint8) for _ in range(1600)]  # 100 MiB of the heap
    del pieces
    with PeakMemory() as peak:
        again = [np.ones(64 * 1024, dtype=np.uint8) for _ in range(1600)]
    assert peak.mib == pytest.approx(100, abs=15)
    assert len(again) == 1600


def test_nothing_is_known_before_the_block():
    assert math.isnan(PeakMemory().mib)


def test_nothing_goes_on_watching_after_an_error():
    running = threading.active_count()
    with pytest.raises(ZeroDivisionError), PeakMemory():
        raise ZeroDivisionError
    assert threading.active_count() == running
