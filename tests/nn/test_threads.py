"""Rows distributed over threads."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from sk_momkd.nn import threads


@pytest.mark.parametrize("openmp", [True, False])
def test_rows_are_shared_among_threads_each_once(monkeypatch, openmp):
    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        threads.over_rows(lambda rows: seen.append(rows), 5000)
        with pytest.raises(KeyboardInterrupt):
            threads.over_rows(_interrupt, 5000)
    finally:
        torch.set_num_threads(before)
    covered = sorted(seen)
    assert covered[0][0] == 0
    assert covered[-1][1] == 5000
    assert all(a[1] == b[0] for a, b in pairwise(covered))


def test_rows_few_pieces_still_use_the_full_team(monkeypatch):
    teams, seen, before = [], [], torch.get_num_threads()

    def parallel(body, _, n_threads, flags):
        teams.append(n_threads)
        body(None)

    monkeypatch.setattr(threads, "_openmp", lambda: SimpleNamespace(GOMP_parallel=parallel))
    torch.set_num_threads(4)
    try:
        threads.over_rows(seen.append, 300)
        threads.over_rows(seen.append, 200)  # one piece needs no team
    finally:
        torch.set_num_threads(before)
    assert teams == [4]
    assert seen == [(0, 256), (256, 300), (0, 200)]


def _interrupt(rows):
    raise KeyboardInterrupt


def test_kernel_that_fails_in_a_thread_raises(monkeypatch, capfd):
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            threads.over_rows(lambda rows: 1 / 0, 5000)
    finally:
        torch.set_num_threads(before)
