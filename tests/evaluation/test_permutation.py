"""Permuted labels, other seeds."""

import numpy as np
import pytest
from conftest import make_bags, quick_classifier

from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.evaluation.permutation import permutation_check, seed_spread


@pytest.mark.long
def test_permuted_labels_are_near_chance_and_signal_is_found(pooled_lr):
    bags, y = make_bags(40)
    check = permutation_check(pooled_lr, bags, y, n_permutations=19, cv=4)
    assert check.summary["observed"]["auroc"] > 0.9
    assert 0.35 < check.summary["permuted_mean"]["fold_auroc"] < 0.65
    assert check.summary["p_value"].to_dict() == {"auroc": 0.05, "fold_auroc": 0.05}
    assert len(check.permuted) == 19


def test_observed_value_is_that_of_evaluate(pooled_lr, noisy_cohort):
    bags, y, sites = noisy_cohort
    observed = permutation_check(pooled_lr, bags, y, groups=sites, n_permutations=1, cv=4).summary
    value = evaluate(pooled_lr, bags, y, groups=sites, cv=4, n_bootstrap=10).summary["value"]
    assert observed["observed"]["auroc"] == pytest.approx(value["auroc"])
    assert observed["observed"]["fold_auroc"] == pytest.approx(value["fold_auroc"])


def test_seeds_change_the_training_and_nothing_else(pooled_lr):
    bags, y = make_bags(24)
    assert (seed_spread(pooled_lr, bags, y, n_seeds=3, cv=3).summary["std"].dropna() == 0).all()
    spread = seed_spread(quick_classifier(max_epochs=2), bags, y, n_seeds=3, cv=3)
    assert spread.summary["std"]["brier"] > 0
    assert spread.seeds.index.is_unique
    np.testing.assert_allclose(spread.summary["mean"], spread.seeds.mean())


@pytest.mark.parametrize(
    ("check", "wrong"), [(permutation_check, "n_permutations"), (seed_spread, "n_seeds")]
)
def test_nothing_to_repeat_is_refused(check, wrong, pooled_lr, noisy_cohort):
    with pytest.raises(ValueError, match=wrong):
        check(pooled_lr, *noisy_cohort[:2], **{wrong: 0})
