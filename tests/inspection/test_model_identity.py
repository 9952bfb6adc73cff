"""A fitted model is known again by what it predicts with, and by nothing else."""

import copy

import numpy as np
import pytest
from conftest import make_bags
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import ABMILClassifier, BagPooling
from sk_momkd.inspection.model_identity import model_digest

BAGS, Y = make_bags(8)


def network(**parameters):
    settings = {"dim": 4, "max_epochs": 1, "early_stopping": False, "random_state": 0}
    return ABMILClassifier().set_params(**(settings | parameters)).fit(BAGS, Y)


def pooled(C=1.0):
    return make_pipeline(BagPooling(), LogisticRegression(C=C)).fit(BAGS, Y)


@pytest.mark.parametrize("fit", [network, pooled])
def test_model_that_was_fitted_again_to_the_same_is_the_same(fit):
    assert model_digest(fit()) == model_digest(fit())


@pytest.mark.parametrize(
    "other", [{"random_state": 1}, {"dim": 5}, {"prior": "sampler"}, {"decision_threshold": 0.4}]
)
def test_model_that_predicts_otherwise_is_another(other):
    assert model_digest(network(**other)) != model_digest(network())


@pytest.mark.parametrize("same", [{"verbose": 1}, {"device": "cpu"}, {"random_state": 3}])
def test_parameters_that_change_no_prediction_of_a_fitted_model_do_not_count(same):
    clf = network()
    assert model_digest(copy.copy(clf).set_params(**same)) == model_digest(clf)


def test_fitted_values_of_other_steps_count():
    model, other = pooled(), copy.deepcopy(pooled())
    other[-1].coef_ = np.nextafter(other[-1].coef_, 1)
    assert len({model_digest(m) for m in (model, other, pooled(C=2.0))}) == 3
