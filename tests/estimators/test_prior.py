"""Probabilities at the class shares of the training data or of another population."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, quick_classifier
from quick import CLASSIFIERS, quick, takes_omics
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import ABMILClassifier, InstanceTransformer, explain_prediction
from sk_momkd.estimators.prior import class_probabilities

RARE = np.r_[np.arange(6), np.arange(7, 24, 2), 6]  # of make_bags: 4 of class 0, 12 of class 1


def rare_cohort(classes=(0, 1)):
    bags, y = make_bags()
    return bags[RARE], np.asarray(classes)[y[RARE]]


def fit(name, **overrides):
    bags, y = rare_cohort()
    settings = {"sampler": "balanced", "max_epochs": 1, "early_stopping": False} | overrides
    omics = {"omics": np.arange(len(y) * 8.0).reshape(-1, 8) % 7} if takes_omics(name) else {}
    return quick(name, **settings).fit(bags, y, **omics), bags


class Stated(ABMILClassifier):
    """A classifier whose network has stated logits for every bag."""

    def _forward(self, X):
        return [SimpleNamespace(logits=torch.tensor([row])) for row in X]


def stated(prior, *, training, sampled, classes=(0, 1), pos_label=None):
    clf = Stated(prior=prior)
    clf.classes_, clf.module_ = np.array(classes), None
    clf.pos_label_ = (classes[1] if pos_label is None else pos_label) if len(classes) == 2 else None
    clf.class_prior_, clf.sampled_prior_ = np.array(training), np.array(sampled)
    return clf


def test_probability_of_half_under_the_balanced_sampler_is_the_prevalence():
    clf = stated("training", training=[0.9, 0.1], sampled=[0.5, 0.5])
    np.testing.assert_allclose(clf.predict_proba([[1.0, 1.0]]), [[0.9, 0.1]], rtol=1e-12)
    # odds of 3:1 under 1:1 are 3:9 = 1:3 at one in ten
    odds = [[0.0, np.log(3.0)]]
    np.testing.assert_allclose(clf.predict_proba(odds), [[0.75, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(clf.decision_function(odds), [np.log(1 / 3)], rtol=1e-6)
    assert clf.predict(odds).tolist() == [0]
    assert clf.set_params(prior="sampler").predict(odds).tolist() == [1]


def test_probability_of_three_classes_and_of_another_population_by_hand():
    logits = [np.log([0.2, 0.3, 0.5]).tolist()]
    shares = {"training": [0.5, 0.25, 0.25], "sampled": [1 / 3] * 3, "classes": ("a", "b", "c")}
    expected = np.array([0.2 * 0.5, 0.3 * 0.25, 0.5 * 0.25])
    got = stated("training", **shares).predict_proba(logits)
    np.testing.assert_allclose(got, [expected / expected.sum()], rtol=1e-6)
    expected = np.array([0.2 * 0.1, 0.3 * 0.1, 0.5 * 0.8])
    for prior in ([0.1, 0.1, 0.8], {"c": 0.8, "a": 0.1, "b": 0.1}):
        got = stated(prior, **shares).predict_proba(logits)
        np.testing.assert_allclose(got, [expected / expected.sum()], rtol=1e-6)


def test_prior_goes_by_label_whichever_class_is_positive():
    """The network's class 0 is "b" here, the negative one."""
    shares = {"training": [0.1, 0.9], "sampled": [0.5, 0.5], "classes": ("a", "b")}
    clf = stated("training", **shares, pos_label="a")
    np.testing.assert_allclose(clf.predict_proba([[1.0, 1.0]]), [[0.1, 0.9]], rtol=1e-12)
    clf.set_params(prior={"b": 0.3, "a": 0.7})
    np.testing.assert_allclose(clf.predict_proba([[1.0, 1.0]]), [[0.7, 0.3]], rtol=1e-12)


def test_prior_keeps_the_ranking_to_the_bit():
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 2), scale=5).astype(np.float32)
    logits[1::2] = np.nextafter(logits[::2], np.float32(np.inf))  # as close as two can be
    clf = stated("sampler", training=[0.97, 0.03], sampled=[0.5, 0.5])
    trained = rankdata(clf.decision_function(logits.tolist()))
    clf.set_params(prior="training")
    np.testing.assert_array_equal(rankdata(clf.decision_function(logits.tolist())), trained)


@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_classifier_corrects_the_balanced_sampler(name, n_models):
    clf, bags = fit(name, n_models=n_models)
    np.testing.assert_allclose(clf.class_prior_, [4 / 16, 12 / 16])
    np.testing.assert_allclose(clf.sampled_prior_, [0.5, 0.5])
    corrected, odds = clf.predict_proba(bags), clf.decision_function(bags)
    trained = clf.set_params(prior="sampler").predict_proba(bags)
    expected = trained * [4 / 16, 12 / 16]
    np.testing.assert_allclose(corrected, expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(odds, np.log(corrected[:, 1] / corrected[:, 0]))
    np.testing.assert_array_equal(rankdata(corrected[:, 1]), rankdata(trained[:, 1]))


def test_shuffle_sampler_needs_no_correction():
    clf, bags = fit("ABMILClassifier", sampler="shuffle")
    np.testing.assert_array_equal(clf.sampled_prior_, clf.class_prior_)
    trained = clf.predict_proba(bags)
    np.testing.assert_array_equal(clf.set_params(prior="sampler").predict_proba(bags), trained)


@pytest.mark.parametrize("later", ["training", "sampler", {0: 0.9, 1: 0.1}])
def test_validation_part_has_the_prior_also_where_it_is_set_after_fit(later):
    clf, _ = fit("ABMILClassifier", early_stopping=True, validation_fraction=0.25)
    clf.set_params(prior=later)
    assert len(clf.validation_) == 4
    np.testing.assert_allclose(clf.class_prior_, [4 / 16, 12 / 16])
    bags, _ = rare_cohort()
    rows = [bag.bag_id in set(clf.validation_["bag_id"]) for bag in bags]
    held = clf.validation_.set_index("bag_id").loc[[b.bag_id for b in bags[np.flatnonzero(rows)]]]
    np.testing.assert_allclose(held["p_1"], clf.predict_proba(bags)[rows, 1])


def test_explained_probability_is_the_corrected_one():
    bags, y = rare_cohort()
    clf = quick_classifier(max_epochs=1, early_stopping=False).fit(bags, y)
    found = explain_prediction(clf, bags[:3], random_state=0)
    np.testing.assert_allclose(found.bags["probability"], clf.predict_proba(bags[:3])[:, 1])
    assert found.fidelity_error < 1e-5


def test_prior_is_a_parameter_of_pipelines_grids_and_clones():
    bags, y = rare_cohort()
    few = {"max_epochs": 1, "early_stopping": False, "random_state": 0, "sampler": "balanced"}
    pipe = make_pipeline(InstanceTransformer(StandardScaler()), quick("ABMILClassifier", **few))
    grid = {"abmilclassifier__prior": ["training", "sampler", {0: 0.5, 1: 0.5}]}
    found = GridSearchCV(pipe, grid, cv=2, scoring="neg_log_loss").fit(bags, y)
    losses = found.cv_results_["mean_test_score"]
    assert losses[0] != losses[1] == pytest.approx(losses[2])
    assert clone(quick("ABMILClassifier", prior=[0.2, 0.8])).prior == [0.2, 0.8]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.6], r"sums to 1\.1, expected 1"),
        ([0.2, 0.3, 0.5], r"one number above 0 for each of the classes \[0, 1\]"),
        ([0.0, 1.0], "one number above 0"),
        ({0: 0.4, 2: 0.6}, r"has the classes \[0, 2\], expected one entry for each of \[0, 1\]"),
        ("data", "prior"),
    ],
)
def test_prior_that_is_none_raises_before_training(prior, message):
    with pytest.raises(ValueError, match=message):
        fit("ABMILClassifier", prior=prior, max_epochs=10**6)


def test_prior_of_training_is_unknown_to_an_official_checkpoint():
    clf = stated("training", training=[0.5, 0.5], sampled=[0.5, 0.5])
    del clf.class_prior_
    with pytest.raises(ValueError, match=r'needs the class shares.*Use prior="sampler"'):
        clf.predict_proba([[0.0, 1.0]])


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_presets_of_papers_leave_probabilities_as_trained(name):
    for preset in CLASSIFIERS[name]._presets:
        as_published = preset in {"original", "paper", "release"}
        prior = CLASSIFIERS[name].preset(preset).prior
        assert prior == ("sampler" if as_published else "training")


def test_series_is_joined_by_label_and_row_numbers_are_an_order():
    classes = np.array(["mut", "wt"])
    shares = pd.Series({"wt": 0.75, "mut": 0.25})  # as value_counts sorts it
    np.testing.assert_array_equal(class_probabilities(shares, classes), [0.25, 0.75])
    by_place = pd.Series([0.75, 0.25])
    np.testing.assert_array_equal(class_probabilities(by_place, classes), [0.75, 0.25])


def test_unknown_word_that_is_set_after_fit_raises():
    bags, y = make_bags(16)
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    with pytest.raises(ValueError, match="prior must be"):
        clf.set_params(prior="uniform").predict_proba(bags)
