"""Warnings of bags: one per category, in loops and generators, also nested or ended by an error."""

import threading
import warnings
from contextlib import closing

import pytest

from sk_momkd.bag_warnings import together, warn_of_bag, warns_together
from sk_momkd.exceptions import CohortWarning


@warns_together
def numbers(n, fails=False):
    for i in range(n):
        warn_of_bag(f"S{i}", "it is odd.", UserWarning)
        yield i
    if fails:
        raise ValueError("S3 is broken")


@pytest.fixture
def said(recwarn):
    warnings.simplefilter("always")
    return lambda: [(str(w.message), w.category) for w in recwarn]


def test_outside_a_loop_each_bag_warns(said):
    for name in ("S1", "S2"):
        warn_of_bag(name, "it is odd.", CohortWarning)
    assert said() == [("S1: it is odd.", CohortWarning), ("S2: it is odd.", CohortWarning)]


def test_a_category_is_one_warning_with_all_that_is_said_of_the_first_bag(said):
    with together():
        for name in ("S1", "S2", "S1", "S3", "S4", "S5"):
            warn_of_bag(name, "it is odd.", UserWarning)
        warn_of_bag("S1", "it is even.", UserWarning)
        warn_of_bag("S9", "it is alone.", CohortWarning)
    assert said() == [
        ("S1: it is odd. it is even. Likewise 4 more: S2, S3, S4 and 1 more.", UserWarning),
        ("S9: it is alone.", CohortWarning),
    ]


@pytest.mark.parametrize("n_taken", [1, 2, 3])
def test_generator_warns_when_it_ends_and_leaves_the_turn_of_its_caller_alone(said, n_taken):
    with closing(numbers(3)) as items:
        for _ in range(n_taken):
            next(items)
            warn_of_bag("caller", "it is odd.", CohortWarning)
    assert [category for _, category in said()] == [CohortWarning] * n_taken + [UserWarning]
    assert said()[-1][0].count("S") == n_taken


def test_generator_inside_a_loop_hands_its_warnings_to_the_loop(said):
    with together():
        assert list(numbers(2)) == [0, 1]
        assert list(numbers(3)) == [0, 1, 2]
    assert said() == [("S0: it is odd. Likewise 2 more: S1, S2.", UserWarning)]


def test_error_comes_after_the_warnings(said):
    with pytest.raises(ValueError, match="S3 is broken"):
        list(numbers(2, fails=True))
    assert said() == [("S0: it is odd. Likewise 1 more: S1.", UserWarning)]


def test_other_threads_are_left_alone(said):
    with together():
        thread = threading.Thread(target=warn_of_bag, args=("S1", "it is odd.", UserWarning))
        thread.start()
        thread.join()
        assert len(said()) == 1
