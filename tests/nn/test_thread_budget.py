"""Threads by the amount of work; each thread of Python has its own number, and gets it back."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from sk_momkd.nn.thread_budget import SMALL, threads_for


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_takes_one_thread_and_large_work_those_of_the_process():
    with threads_for(SMALL):
        assert torch.get_num_threads() == 1
        with threads_for(SMALL + 1):  # a callback that predicts a large slide
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), threads_for(0):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_work_in_several_threads_of_python_does_not_mix():
    inside = Barrier(4)

    def work(n_values):
        with threads_for(n_values):
            inside.wait(timeout=10)
            seen = torch.get_num_threads()
            inside.wait(timeout=10)
        return seen, torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [0, SMALL + 1, SMALL, 2 * SMALL]))
    assert found == [(1, 2), (2, 2), (1, 2), (2, 2)]
    assert torch.get_num_threads() == 2
