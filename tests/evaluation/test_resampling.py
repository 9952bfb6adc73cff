"""Draws, and the coverage of the intervals they give."""

import numpy as np
import pytest
from scipy.stats import norm

from sk_momkd.evaluation.metrics import auroc
from sk_momkd.evaluation.statistics import (
    bootstrap_weights,
    percentile_interval,
    stratified_bootstrap_weights,
)


def test_draws_of_patients_have_the_size_of_the_cohort():
    draws = bootstrap_weights(np.arange(30), 100, np.random.default_rng(0))
    assert draws.shape == (100, 30)
    assert (draws.sum(axis=1) == 30).all()
    assert draws.mean(axis=0) == pytest.approx(1, abs=0.5)


def test_draws_of_sites_take_them_whole():
    sites = np.array(list("AABBBCDD"))
    draws = bootstrap_weights(sites, 200, np.random.default_rng(0))
    for site in "ABD":
        members = draws[:, sites == site]
        assert (members == members[:, :1]).all()
    first = [np.flatnonzero(sites == s)[0] for s in "ABCD"]
    assert (draws[:, first].sum(axis=1) == 4).all()


def test_draws_within_strata_keep_their_sizes():
    strata = np.array([0, 0, 0, 1, 1, 5])
    draws = stratified_bootstrap_weights(strata, 50, np.random.default_rng(0))
    for stratum, size in ((0, 3), (1, 2), (5, 1)):
        assert (draws[:, strata == stratum].sum(axis=1) == size).all()


def test_interval_leaves_out_draws_without_a_value():
    low, high = percentile_interval(np.r_[np.arange(101.0), np.nan], 0.9)
    assert (low, high) == pytest.approx((5, 95))
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.9)).all()


@pytest.mark.parametrize("within_folds", [False, True])
def test_interval_of_simulated_auroc_covers_the_truth(within_folds):
    truth, n_positive, n = 0.75, 30, 100
    random = np.random.default_rng(0)
    y = np.arange(n) < n_positive
    fold = np.r_[np.arange(n_positive) % 3, np.arange(n - n_positive) % 3]
    covered = 0
    for _ in range(300):
        score = random.normal(size=n) + np.sqrt(2) * norm.ppf(truth) * y
        if within_folds:
            draws = stratified_bootstrap_weights(fold, 250, random)
            parts = [auroc(y[fold == f], score[fold == f], draws[:, fold == f]) for f in range(3)]
            values = np.mean(parts, axis=0)
        else:
            values = auroc(y, score, bootstrap_weights(np.arange(n), 250, random))
        low, high = percentile_interval(values, 0.95)
        covered += low <= truth <= high
    assert 0.90 <= covered / 300 <= 0.99
