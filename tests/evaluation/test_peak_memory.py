"""Most memory of a block."""

import math
import sys
import threading
import time

import numpy as np
import pytest

from sk_momkd.evaluation.peak_memory import PeakMemory

MIB = 2**20


def test_what_is_let_go_within_the_block_counts():
    assert min(peak_of_three() for _ in range(3)) == pytest.approx(100, abs=10)


def peak_of_three():
    with PeakMemory() as peak:
        for size in (40, 100, 50):  # above 32 MiB malloc gives all back at once
            held = np.ones(size * MIB, dtype=np.uint8)
            time.sleep(0.2)  # longer than between two looks
            del held
    return peak.mib


def test_what_was_there_before_does_not_count():
    before = np.ones(100 * MIB, dtype=np.uint8)
    with PeakMemory() as peak:
        after = np.ones(40 * MIB, dtype=np.uint8)
    assert peak.mib == pytest.approx(40, abs=10)
    assert before.nbytes + after.nbytes == 140 * MIB


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
