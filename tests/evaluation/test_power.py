"""The smallest difference that can be seen, against simulation and limits."""

import numpy as np
import pytest
from conftest import make_bags
from scipy.stats import norm

from sk_momkd.evaluation.statistics import (
    delong_test,
    detectable_difference,
    hanley_mcneil_variance,
)


def labels(n_positive, n_negative):
    return np.r_[np.ones(n_positive), np.zeros(n_negative)]


def test_variance_of_one_pair_is_that_of_a_coin():
    assert hanley_mcneil_variance(0.7, 1, 1) == pytest.approx(0.7 * 0.3)


def test_difference_solves_its_equation():
    note = detectable_difference(labels(60, 140), auroc=0.7, correlation=0.4)
    one = hanley_mcneil_variance(0.7, 60, 140)
    other = hanley_mcneil_variance(0.7 + note.difference, 60, 140)
    error = np.sqrt(one + other - 0.8 * np.sqrt(one * other))
    assert note.difference == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error)


def test_difference_is_found_as_often_as_promised():
    note = detectable_difference(labels(80, 160), auroc=0.75, correlation=0.0)
    random, y, found = np.random.default_rng(0), labels(80, 160), 0
    for _ in range(300):
        first, second = (
            random.normal(size=240) + np.sqrt(2) * norm.ppf(a) * y
            for a in (0.75 + note.difference, 0.75)
        )
        found += delong_test(y, first, second).p_value < 0.05
    assert 0.7 < found / 300 < 0.9


def test_more_patients_and_more_correlation_see_more():
    few = detectable_difference(labels(20, 80)).difference
    assert detectable_difference(labels(80, 320)).difference < few
    assert detectable_difference(labels(20, 80), correlation=0.9).difference < few


def test_difference_of_hopeless_cohort_is_nan_and_says_so():
    note = detectable_difference(labels(3, 5), auroc=0.9)
    assert np.isnan(note.difference)
    assert "cannot show any difference" in str(note)


def test_bags_are_counted_by_patient():
    bags, y = make_bags(24, patients=[f"P{i // 4}" for i in range(24)])
    y = (np.arange(24) // 4) % 2
    note = detectable_difference(y, bags, pos_label=0)
    assert (note.n_positive, note.n_negative) == (3, 3)
    assert detectable_difference(y).n_positive == 12
    assert "12 positive and 12 negative patients" in str(detectable_difference(y))


@pytest.mark.parametrize(
    "wrong", [{"auroc": 0.4}, {"correlation": 1.0}, {"power": 1.0}, {"pos_label": 7}]
)
def test_unusable_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"auroc|correlation|power|pos_label"):
        detectable_difference(labels(10, 10), **wrong)
