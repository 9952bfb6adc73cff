"""A threshold that a classifier keeps: in predict, copies, searches, and at another prior."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from quick import CLASSIFIERS
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagSequence,
    DecisionThreshold,
    PatientStratifiedKFold,
    evaluate,
    evaluate_external,
    load_model,
    prediction_table,
    save_model,
)
from sk_momkd.estimators.decision_threshold import at_prior, moved_threshold
from sk_momkd.estimators.decisions import Predictions, known_classes, predictions

PRIORS = ("training", "sampler", {"neg": 0.98, "pos": 0.02})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", None])
def test_threshold_that_is_no_probability_raises(value):
    with pytest.raises(ValueError, match="A threshold is a probability, between 0 and 1"):
        DecisionThreshold(value)


def cohort(prefix="P", n=24, seed=0):
    random, y = np.random.default_rng(seed), np.array(["neg", "neg", "pos"] * (n // 3))
    bags = [
        Bag(random.normal((label == "pos") * 0.5, 1, (4, 3)), patient_id=f"{prefix}{i:02d}")
        for i, label in enumerate(y)
    ]
    return BagSequence(bags), y


def fitted(**parameters):
    clf = ABMILClassifier(dim=8, max_epochs=2, early_stopping=False, random_state=0)
    return clf.set_params(sampler="balanced", **parameters).fit(*cohort())


@pytest.fixture(scope="module")
def model():
    return fitted()


def with_threshold(model, threshold, **parameters):
    return copy.copy(model).set_params(decision_threshold=threshold, **parameters)


def median(model, bags):
    return float(np.median(model.predict_proba(bags)[:, 1]))


def test_predict_takes_the_positive_class_from_the_threshold_on(model):
    bags, _ = cohort()
    p = model.predict_proba(bags)[:, 1]
    t = median(model, bags)
    clf = with_threshold(model, t)
    assert (clf.predict(bags) == np.where(p >= t, "pos", "neg")).all()
    assert len(set(clf.predict(bags))) == 2
    assert model.predict(bags).tolist() == model.classes_[(p > 0.5).astype(int)].tolist()
    assert (with_threshold(model, 0).predict(bags) == "pos").all()


def test_threshold_is_on_the_class_that_is_positive():
    bags, _ = cohort()
    clf = fitted(pos_label="neg", decision_threshold=0.7)
    p = clf.predict_proba(bags)[:, 0]
    assert (clf.predict(bags) == np.where(p >= 0.7, "neg", "pos")).all()


def test_threshold_survives_copies_and_searches(model):
    bags, y = cohort()
    threshold = DecisionThreshold(median(model, bags), prior="training", pos_label="pos")
    clf = with_threshold(model, threshold)
    expected = clf.predict(bags).tolist()
    for twin in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert twin.predict(bags).tolist() == expected
        assert twin.decision_threshold == threshold
    assert clone(clf).decision_threshold == threshold
    assert clone(clf).fit(bags, y).predict(bags).tolist() == expected  # the seed is the same
    search = GridSearchCV(clone(clf), {"decision_threshold": [0.0]}, cv=2)
    assert (search.fit(bags, y).predict(bags) == "pos").all()


def test_saved_model_keeps_its_threshold(model, tmp_path):
    bags, _ = cohort()
    about = {"low": 0.1, "high": 0.6, "n_positive": 20, "n_negative": 40, "criterion": "youden"}
    threshold = DecisionThreshold(median(model, bags), prior="training", pos_label="pos", **about)
    for given in (threshold, threshold.value):
        clf = with_threshold(model, given)
        loaded = load_model(save_model(clf, tmp_path / f"{type(given).__name__}.zip"))
        assert loaded.decision_threshold == given
        assert loaded.predict(bags).tolist() == clf.predict(bags).tolist()
    with pytest.raises(ValueError, match="refers to the prior at fit, 'training'"):
        loaded.set_params(prior=PRIORS[2]).predict(bags)


@pytest.mark.parametrize("positive", ["neg", "pos"])  # the first sorts first
def test_tools_of_scikit_learn_take_value_and_class(positive):
    bags, y = cohort()
    model = fitted(pos_label=positive)
    column = ["neg", "pos"].index(positive)
    p = np.unique(model.predict_proba(bags)[:, column])
    t = DecisionThreshold(float(p[5:7].mean()), pos_label=positive)
    fixed = FixedThresholdClassifier(model, threshold=t.value, pos_label=t.pos_label)
    expected = with_threshold(model, t).predict(bags).tolist()
    assert fixed.fit(bags, y).predict(bags).tolist() == expected


def test_thresholds_compare_and_hash_whatever_their_prior_is():
    priors = ([0.9, 0.1], np.array([0.9, 0.1]), pd.Series([0.9, 0.1]))
    one = DecisionThreshold(0.3, prior=(0.9, 0.1))
    assert all(DecisionThreshold(0.3, prior=prior) == one for prior in priors)
    assert DecisionThreshold(0.3, prior=np.array([0.8, 0.2])) != one
    named = DecisionThreshold(0.3, prior={"neg": 0.9, "pos": np.float64(0.1)})
    assert named == DecisionThreshold(0.3, prior=pd.Series({"neg": 0.9, "pos": 0.1})) != one
    assert len({one, named, *(DecisionThreshold(0.3, prior=prior) for prior in priors)}) == 2


def test_threshold_moves_to_training_data_with_another_prevalence(model, tmp_path):
    bags, _ = cohort()
    t = median(model, bags)
    half = DecisionThreshold(t, prior={"neg": 0.5, "pos": 0.5}, pos_label="pos")
    clf = with_threshold(model, half)  # trained on a third of "pos"
    moved = moved_threshold(t, np.array([0.5, 0.5]), np.array([2 / 3, 1 / 3]), 1)
    assert clf.decision_threshold_ == pytest.approx(moved)
    loaded = load_model(save_model(clf, tmp_path / "m.zip"))
    assert loaded.decision_threshold == half
    assert loaded.predict(bags).tolist() == clf.predict(bags).tolist()


@pytest.mark.parametrize("before", PRIORS, ids=str)
@pytest.mark.parametrize("after", PRIORS, ids=str)
def test_threshold_moves_with_the_prior_so_that_decisions_stay(model, before, after):
    bags, _ = cohort()
    there = copy.copy(model).set_params(prior=before)
    t = median(there, bags) - 1e-9
    threshold = DecisionThreshold(t, prior=before)
    expected = with_threshold(there, threshold).predict(bags).tolist()
    clf = with_threshold(model, threshold, prior=after)
    assert clf.predict(bags).tolist() == expected
    p = clf.predict_proba(bags)[:, 1]
    assert ((p >= clf.decision_threshold_) == (np.array(expected) == "pos")).all()
    assert (clf.decision_threshold_ == t) == (before == after)


@pytest.mark.parametrize("before", PRIORS, ids=str)
def test_patients_of_several_slides_stay_positive_at_another_prior(model, before):
    bags, _ = cohort()
    owner, classes = np.arange(24) // 2, model.classes_.tolist()
    there = copy.copy(model).set_params(prior=before)
    means = there.predict_proba(bags)[:, 1].reshape(12, 2).mean(axis=1)
    for rank in (3, 6, 9):
        threshold = DecisionThreshold(float(np.sort(means)[[rank - 1, rank]].mean()), prior=before)
        for after in PRIORS:
            found = predictions(with_threshold(model, threshold, prior=after), bags, classes)
            assert found.of_patients(owner)[1].tolist() == (means >= threshold.value).tolist()


def test_mean_of_a_patient_is_taken_at_the_prior_of_the_threshold():
    half, rare = np.array([0.5, 0.5]), np.array([0.98, 0.02])
    slides = np.array([0.9, 0.05])
    moved = at_prior(0.5, half, rare, 1)
    there = np.array([moved_threshold(p, half, rare, 1) for p in slides])
    assert slides.mean() < 0.5
    assert there.mean() > moved.value  # but the patient is negative
    for column in (0, 1):
        proba = np.stack([there, 1 - there] if column == 0 else [1 - there, there], axis=1)
        predicted = np.where(there >= moved.value, column, 1 - column)
        found = Predictions(proba, predicted, column, moved.value, "", moved)
        mean, decided = found.of_patients(np.zeros(2, dtype=int))
        assert decided.tolist() == [1 - column]
        np.testing.assert_allclose(mean[0], proba.mean(axis=0))


def test_number_is_refused_at_another_prior_than_at_fit(model):
    clf = with_threshold(model, 0.3, prior=PRIORS[2])
    with pytest.raises(ValueError, match=r"prior at fit, 'training'; now prior=\{.*Pass Decision"):
        clf.predict(cohort()[0])
    assert clf.predict_proba(cohort()[0]).shape == (24, 2)
    again = fitted(prior=PRIORS[2], decision_threshold=0.3)
    assert again.decision_threshold_ == 0.3  # it was set for these probabilities


def test_moved_threshold_by_hand():
    half, rare = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert moved_threshold(0.5, half, rare, 1) == pytest.approx(0.1)
    assert moved_threshold(0.5, half, rare, 0) == pytest.approx(0.9)
    assert moved_threshold(0.1, rare, half, 1) == pytest.approx(0.5)
    assert moved_threshold(1.0, half, rare, 1) == 1.0


def test_threshold_that_does_not_fit_the_classes_raises(model):
    bags, y = cohort()
    other = DecisionThreshold(0.3, pos_label="neg")
    with pytest.raises(ValueError, match="chosen for the positive class 'neg'"):
        with_threshold(model, other).predict(bags)
    three = np.array(["a", "b", "c"])[np.arange(24) % 3]
    for threshold in (0.3, other):
        with pytest.raises(ValueError, match="for two classes, but there are 3"):
            clone(model).set_params(decision_threshold=threshold).fit(bags, three)
    for wrong in (1.5, -0.1, "half"):
        with pytest.raises(ValueError, match="decision_threshold"):
            clone(model).set_params(decision_threshold=wrong).fit(bags, y)


def test_evaluations_and_tables_decide_at_the_threshold(model):
    bags, y = cohort()
    folds = PatientStratifiedKFold(2, random_state=0)
    clf = clone(model).set_params(decision_threshold=DecisionThreshold(0.0, prior="training"))
    pipe = make_pipeline("passthrough", clf)
    result = evaluate(pipe, bags, y, cv=folds, n_bootstrap=10)
    assert (result.predictions["predicted"] == "pos").all()
    assert result.folds["threshold_source"].str.contains("decision_threshold").all()
    with pytest.warns(UserWarning, match="rests on 8 patients of 'pos' and 16 of 'neg'"):
        chosen = result.threshold()
    assert (chosen.prior, chosen.pos_label) == (pytest.approx({"neg": 2 / 3, "pos": 1 / 3}), "pos")
    final = with_threshold(model, chosen)
    external, labels = cohort("X", seed=1)
    found = evaluate_external(final, external, labels, n_bootstrap=10)
    called = final.predict(external)
    assert found.predictions["predicted"].tolist() == called.tolist()
    assert found.summary.loc["sensitivity", "ensemble"] == np.mean(called[labels == "pos"] == "pos")
    assert "youden" in found.by_model["threshold_source"][0]
    table = prediction_table(final, external, unit="patient")
    assert table["predicted"].tolist() == called.tolist()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_takes_a_threshold(name):
    clf = CLASSIFIERS[name](decision_threshold=0.25)
    assert clone(clf).decision_threshold == 0.25


def test_classifier_that_is_not_fitted_says_so():
    bags, y = cohort()
    for clf in (ABMILClassifier(), make_pipeline("passthrough", ABMILClassifier())):
        for model in (clf, FixedThresholdClassifier(clf), GridSearchCV(clf, {})):
            with pytest.raises(NotFittedError):
                known_classes(model)
        with pytest.raises(NotFittedError):
            evaluate_external(clf, bags, y)
