"""One fold: what reaches `fit`, how predictions are read."""

import numpy as np
import pandas as pd
import pytest
from sklearn.svm import LinearSVC

from sk_momkd.evaluation.fold_fit import bag_probabilities, tuned_threshold
from sk_momkd.evaluation.study import as_study, make_plan
from sk_momkd.evaluation.study_fits import fit_folds


class Fixed:
    """A fitted model with given answers."""

    def __init__(self, classes, proba=None, validation=None):
        self.classes_ = np.array(classes)
        self.proba = proba
        self.validation_ = validation

    def predict_proba(self, X):
        return np.array(self.proba)


def test_fit_gets_the_training_bags_and_their_groups_and_all_omics(noisy_cohort, recorder):
    bags, y, sites = noisy_cohort
    rna = pd.DataFrame(np.eye(40), index=[f"P{i:02d}" for i in range(40)])
    study = as_study(bags, y, omics=rna, groups=sites)
    plan = make_plan(study, 4, 1, 0)
    outcome = fit_folds(study, recorder, plan, omics=[study.omics], keep_models=True)[2]
    train, test = plan.splits[0][2]
    assert outcome.model.received_["ids"] == study.bags[train].ids.tolist()
    assert outcome.model.received_["omics"] is study.omics
    assert outcome.model.received_["groups"].tolist() == study.groups[train].tolist()
    assert set(outcome.trained) == set(study.patient_of[train])
    assert set(outcome.tested) == set(study.patient_of[test])
    assert outcome.n_bags.sum() == len(test)


def test_probability_of_a_patient_is_the_mean_over_its_slides(noisy_cohort, recorder):
    study = as_study(*noisy_cohort[:2])
    plan = make_plan(study, 4, 1, 0)
    outcome = fit_folds(study, recorder, plan, omics=[None], keep_models=True)[0]
    test = plan.splits[0][0][1]
    by_bag = outcome.model.predict_proba(study.bags[test])
    expected = pd.DataFrame(by_bag).groupby(study.patient_of[test]).mean()
    np.testing.assert_allclose(outcome.proba, expected)


@pytest.mark.parametrize("measure", [True, False])
def test_memory_is_known_if_it_was_measured(recorder, noisy_cohort, measure):
    bags, y, _ = noisy_cohort
    study = as_study(bags, y)
    plan = make_plan(study, 2, 1, 0)
    outcomes = fit_folds(study, recorder, plan, omics=[None], measure_memory=measure)
    assert [outcome.fit_mib is not None for outcome in outcomes] == [measure] * 2


def test_probabilities_are_put_in_the_order_of_the_study():
    model = Fixed(["a", "c"], [[0.2, 0.8]])
    assert bag_probabilities(model, None, ["c", "b", "a"]).tolist() == [[0.8, 0.0, 0.2]]
    with pytest.raises(ValueError, match="knows the classes"):
        bag_probabilities(model, None, ["a", "b"])


def test_prediction_that_is_not_finite_names_the_bag(noisy_cohort):
    bags = noisy_cohort[0][[0, 1]]
    with pytest.raises(ValueError, match="P01-0"):
        bag_probabilities(Fixed([0, 1], [[0.5, 0.5], [np.nan, 0.5]]), bags, [0, 1])


def test_threshold_is_chosen_by_patient():
    table = pd.DataFrame(
        {
            "bag_id": ["a", "b", "c", "d", None],
            "patient_id": ["A", "A", "C", None, None],
            "y": [1, 1, 0, 1, 0],
            "p_0": [0.9, 0.1, 0.6, 0.3, 0.8],
            "p_1": [0.1, 0.9, 0.4, 0.7, 0.2],
        }
    )
    # patients: A .5 positive, C .4 negative, d .7 positive, the last .2 negative
    assert tuned_threshold(Fixed([0, 1], validation=table), [0, 1]) == pytest.approx(0.5)
    # with 0 as the positive class: C .6 and the last .8 against A .5 and d .3
    assert tuned_threshold(Fixed([0, 1], validation=table), [1, 0]) == pytest.approx(0.6)


def test_threshold_without_validation_part_is_nan():
    assert np.isnan(tuned_threshold(Fixed([0, 1]), [0, 1]))
    assert np.isnan(tuned_threshold(object(), [0, 1]))


def test_estimator_without_probabilities_is_refused(noisy_cohort):
    study = as_study(*noisy_cohort[:2])
    with pytest.raises(TypeError, match="LinearSVC has no predict_proba"):
        fit_folds(study, LinearSVC(), make_plan(study, 2, 1, 0), omics=[None])
