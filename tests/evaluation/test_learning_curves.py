"""Nested shares of the training patients."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.evaluation.learning_curves import learning_curve, subsample_training
from sk_momkd.evaluation.study import as_study, make_plan


def test_smaller_shares_lie_within_larger_and_keep_patients_whole(noisy_cohort):
    study = as_study(*noisy_cohort[:2])
    plan = make_plan(study, 4, 2, 0)
    shares = [subsample_training(plan, study, fraction) for fraction in (0.2, 0.5, 1.0)]
    for repeat in range(2):
        for fold in range(4):
            trains = [set(plan.splits[repeat][fold][0].tolist()) for plan in shares]
            assert trains[0] < trains[1] < trains[2] == set(plan.splits[repeat][fold][0].tolist())
            small = shares[0].splits[repeat][fold][0]
            chosen = study.patients_at(small)
            assert np.bincount(study.labels[chosen]).tolist() == [3, 3]
            assert np.isin(study.patient_of[plan.splits[repeat][fold][0]], chosen).sum() == len(
                small
            )


def test_curve_ends_at_the_full_evaluation(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    points = learning_curve(pooled_lr, bags, y, fractions=[1, 0.3], cv=4, n_bootstrap=50).points
    assert points.index.tolist() == [0.3, 1.0]
    assert points["n_train"].tolist() == [10, 30]
    whole = evaluate(pooled_lr, bags, y, cv=4, n_bootstrap=50).summary
    assert points["auroc"][1.0] == whole["value"]["auroc"]
    assert points["fold_high"][1.0] == whole["high"]["fold_auroc"]


def test_shares_hold_as_large_a_part_of_those_with_omics(noisy_cohort):
    bags, y, _ = noisy_cohort
    omics = pd.DataFrame({"gene": 1.0}, index=[f"P{i:02d}" for i in range(0, 40, 3)])
    study = as_study(bags, y, omics=omics)
    plan = subsample_training(make_plan(study, 4, 1, 0), study, 0.5)
    paired = study.omics.match(study.bags) >= 0
    whole = make_plan(study, 4, 1, 0)
    for (train, _), (everyone, _) in zip(plan.splits[0], whole.splits[0], strict=True):
        for label in ("basal", "luminal"):
            here, there = (part[study.y[part] == label] for part in (train, everyone))
            few, many = (len(study.patients_at(part[paired[part]])) for part in (here, there))
            assert few == np.ceil(many / 2)


def test_fraction_that_cannot_be_fitted_is_named(noisy_cohort):
    class Picky(DummyClassifier):
        def fit(self, X, y):
            if len(X) < 20:
                raise ValueError("too few")
            return super().fit(np.zeros(len(y)), y)

        def predict_proba(self, X):
            return super().predict_proba(np.zeros(len(X)))

    with pytest.raises(ValueError, match="too few") as caught:
        learning_curve(Picky(), *noisy_cohort[:2], fractions=[0.2, 1.0], n_bootstrap=20)
    assert "a fraction of 0.2 of the training patients" in " ".join(caught.value.__notes__)


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [1.5]])
def test_unusable_fractions_are_refused(fractions, noisy_cohort, pooled_lr):
    with pytest.raises(ValueError, match="fractions"):
        learning_curve(pooled_lr, *noisy_cohort[:2], fractions=fractions)
