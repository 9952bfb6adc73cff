"""Metrics of decisions are those of the estimator's own `predict`, by patient."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagSequence,
    PatientStratifiedKFold,
    compare,
    evaluate,
    evaluate_external,
    report,
)
from sk_momkd.estimators.decision_threshold import MovedThreshold
from sk_momkd.estimators.decisions import Predictions, predictions
from sk_momkd.evaluation.external import _reached_together

DECIDED = ("sensitivity", "specificity", "accuracy", "f1_macro", "balanced_accuracy")
FOLDS = PatientStratifiedKFold(2, random_state=0)


class Always(ClassifierMixin, BaseEstimator):
    """A wrapper that predicts one class whatever the probabilities are."""

    def __init__(self, estimator=None, answer=None):
        self.estimator = estimator
        self.answer = answer

    def fit(self, X, y, **fit_params):
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        self.classes_ = self.estimator_.classes_
        return self

    def predict_proba(self, X):
        return self.estimator_.predict_proba(X)

    def predict(self, X):
        return np.full(len(X), self.answer)


@pytest.fixture
def cohort(noisy_cohort):
    bags, y, sites = noisy_cohort
    return bags, (y == "luminal").astype(int), sites


def run(estimator, cohort, **options):
    bags, y, _ = cohort
    return evaluate(estimator, bags, y, cv=FOLDS, n_bootstrap=20, **options)


def value(result):
    return result.summary["value"]


def test_fixed_threshold_decides(cohort, pooled_lr):
    low = run(FixedThresholdClassifier(pooled_lr, threshold=0.0), cohort)
    assert value(low)[["sensitivity", "specificity"]].tolist() == [1, 0]
    plain = run(pooled_lr, cohort)
    assert value(low)["auroc"] == value(plain)["auroc"]
    same = run(FixedThresholdClassifier(pooled_lr, threshold=0.5), cohort)
    for metric in DECIDED:
        assert value(same)[metric] == value(plain)[metric]
        assert value(same)[f"{metric}_tuned"] == value(same)[metric]  # the threshold of predict
    assert np.isnan(value(plain)["sensitivity_tuned"])


def test_threshold_counts_for_the_mean_probability_of_a_patient(cohort, pooled_lr):
    result = run(FixedThresholdClassifier(pooled_lr, threshold=0.4), cohort)
    table = result.predictions
    assert (table["n_bags"] > 1).any()
    assert ((table["p_1"] >= 0.4).astype(int) == table["predicted"]).all()
    assert (table["threshold"] == 0.4).all()


@pytest.mark.filterwarnings("ignore:GridSearchCV splits by StratifiedKFold")
@pytest.mark.parametrize("around", ["pipeline", "search", "search in a pipeline"])
def test_threshold_inside_counts(cohort, pooled_lr, around):
    fixed = FixedThresholdClassifier(LogisticRegression(), threshold=0.0)
    inner = make_pipeline(pooled_lr[0], fixed)
    if around == "search":
        inner = GridSearchCV(inner, {"fixedthresholdclassifier__threshold": [0.0]}, cv=FOLDS)
    elif around == "search in a pipeline":
        inner = make_pipeline(pooled_lr[0], GridSearchCV(fixed, {"threshold": [0.0]}, cv=2))
    result = run(inner, cohort)
    assert value(result)[["sensitivity", "specificity"]].tolist() == [1, 0]


def test_text_and_page_say_whose_threshold_it_is(cohort, pooled_lr, tmp_path):
    pytest.importorskip("matplotlib")
    result = run(FixedThresholdClassifier(pooled_lr, threshold=0.4), cohort)
    assert "at the threshold 0.4 of predict (FixedThresholdClassifier)" in str(result)
    page = report(result, tmp_path / "r.html").read_text("utf-8")
    assert "at the threshold 0.4 of predict (FixedThresholdClassifier)" in page
    assert "of predict" not in run(pooled_lr, cohort).note


def test_tuned_threshold_is_that_of_each_fold(cohort, pooled_lr):
    tuned = TunedThresholdClassifierCV(pooled_lr, cv=FOLDS, thresholds=20)
    result = run(tuned, cohort, keep_models=True)
    assert result.folds["threshold"].tolist() == [m.best_threshold_ for m in result.models]
    assert value(result)["sensitivity_tuned"] == value(result)["sensitivity"]


def test_threshold_of_the_class_that_sorts_first(cohort, pooled_lr):
    """Tuned for "neg", which evaluation takes as the positive class by pos_label."""
    bags, y, _ = cohort
    names = np.array(["b", "a"])[y]  # "a" are the positives and sort first
    fixed = FixedThresholdClassifier(pooled_lr, threshold=0.7, pos_label="a")
    result = evaluate(fixed, bags, names, cv=FOLDS, pos_label="a", n_bootstrap=20)
    table = result.predictions
    assert ((table["p_a"] >= 0.7) == (table["predicted"] == "a")).all()
    assert (table["threshold"] == 0.7).all()
    tuned = TunedThresholdClassifierCV(pooled_lr, cv=FOLDS, thresholds=20)
    result = evaluate(tuned, bags, names, cv=FOLDS, pos_label="a", n_bootstrap=20)
    table = result.predictions  # the tool's threshold is on "b"
    assert ((table["p_b"] >= 1 - table["threshold"]) == (table["predicted"] == "b")).all()
    recall = np.mean(table.loc[table["y"] == "a", "predicted"] == "a")
    assert value(result)["sensitivity"] == value(result)["sensitivity_tuned"] == recall


def test_wrapper_that_decides_otherwise_counts(cohort, pooled_lr):
    result = run(Always(pooled_lr, 1), cohort)
    assert value(result)[["sensitivity", "specificity"]].tolist() == [1, 0]
    assert np.isnan(value(result)["sensitivity_tuned"])
    assert value(result)["auroc"] == value(run(pooled_lr, cohort))["auroc"]


def test_threshold_on_a_decision_function_counts(cohort, pooled_lr):
    fixed = FixedThresholdClassifier(pooled_lr, threshold=-1e9, response_method="decision_function")
    result = run(fixed, cohort)
    assert value(result)[["sensitivity", "specificity"]].tolist() == [1, 0]


def test_calibrated_classifier_takes_its_most_probable_class(cohort, pooled_lr):
    result = run(CalibratedClassifierCV(pooled_lr, cv=FOLDS), cohort)
    table = result.predictions
    assert ((table["p_1"] > 0.5).astype(int) == table["predicted"]).all()


def test_three_classes_are_what_predict_says(cohort, pooled_lr):
    bags, _, _ = cohort
    y = np.array(["a", "b", "c"])[bags.groups() % 3]
    result = evaluate(Always(pooled_lr, "b"), bags, y, cv=FOLDS, n_bootstrap=20)
    assert set(result.predictions["predicted"]) == {"b"}
    assert value(result)["balanced_accuracy"] == pytest.approx(1 / 3)


def test_classifier_without_probabilities_names_the_remedy(cohort):
    fixed = FixedThresholdClassifier(LinearSVC())
    with pytest.raises(TypeError, match=r"no predict_proba.*CalibratedClassifierCV\(LinearSVC"):
        run(fixed, cohort)


def test_decision_of_a_patient_follows_the_rule_that_explains_its_slides():
    proba = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    owner = np.array([0, 0, 0])

    def of_patient(predicted, threshold=np.nan):
        found = Predictions(proba, np.array(predicted), 1, threshold, "")
        return found.of_patients(owner)[1].tolist()

    assert of_patient([0, 1, 0]) == [0]  # the most probable class, of the mean .33
    assert of_patient([0, 1, 0], 0.3) == [1]  # a threshold that explains all slides
    assert of_patient([0, 1, 1], 0.15) == [1]
    assert of_patient([1, 1, 0], 0.15) == [1]  # no threshold explains this: most slides
    assert of_patient([1, 0, 0]) == [0]
    assert Predictions(proba[:1], np.array([1]), 1, np.nan, "").of_patients(owner[:1])[1] == [1]


def test_tie_of_slides_is_negative():
    proba = np.array([[0.4, 0.6], [0.4, 0.6]])
    found = Predictions(proba, np.array([1, 0]), 1, np.nan, "")
    assert found.of_patients(np.array([0, 0]))[1].tolist() == [0]


def test_class_that_is_unknown_raises(cohort, pooled_lr):
    bags, y, _ = cohort
    model = Always(pooled_lr, "odd").fit(bags, y)
    with pytest.raises(ValueError, match="predicts 'odd'"):
        predictions(model, bags, [0, 1])


class Counted(ABMILClassifier):
    """Fitted already, with given probabilities."""

    classes_ = np.array(["a", "b"])
    pos_label_ = "b"
    module_ = "a network"
    n_passes = 0

    def predict_proba(self, X):
        self.n_passes += 1
        return np.array([[0.4, 0.6], [0.7, 0.3]])


class Contrary(Counted):
    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmin(axis=1)]


def test_predict_that_follows_from_probabilities_takes_no_second_pass():
    found = predictions(clf := Counted(), [None, None], ["a", "b"])
    assert (found.predicted.tolist(), clf.n_passes) == ([1, 0], 1)
    found = predictions(clf := Contrary(), [None, None], ["a", "b"])
    assert (found.predicted.tolist(), clf.n_passes) == ([0, 1], 2)


def test_comparison_and_external_evaluation_decide_as_predict(cohort, pooled_lr):
    bags, y, _ = cohort
    fixed = FixedThresholdClassifier(pooled_lr, threshold=0.0)
    both = compare({"at 0": fixed, "plain": pooled_lr}, bags, y, cv=FOLDS, n_bootstrap=20)
    assert both.summary.loc["at 0", ["sensitivity", "specificity"]].tolist() == [1, 0]
    assert both.note.startswith("at 0: Accuracies, F1")
    assert "plain: " not in both.note
    both = compare({"plain": pooled_lr, "at 0": fixed}, bags, y, cv=FOLDS, n_bootstrap=20)
    assert "at 0: Accuracies, F1" in both.note  # also where it is not the first
    fitted = fixed.fit(bags, y)
    other = BagSequence(Bag(bag.features, patient_id=f"X{i:02d}") for i, bag in enumerate(bags))
    alone = evaluate_external(fitted, other, y, n_bootstrap=20)
    assert alone.summary.loc["sensitivity", "ensemble"] == 1
    assert (alone.predictions["predicted"] == 1).all()
    mixed = [fitted, clone(pooled_lr).fit(bags, y), Always(pooled_lr, 0).fit(bags, y)]
    result = evaluate_external(mixed, other, y, n_bootstrap=20)
    plain = (mixed[1].predict(other) == 1).astype(int)  # decides between the two others
    assert result.predictions["predicted"].tolist() == plain.tolist()


def moved_to(odds, proba, threshold, *, column=1):
    """Predictions of slides at a prior with these odds, of a threshold on the class `column`."""
    moved = odds * proba / (1 - proba + odds * proba)
    value = odds * threshold / (1 - threshold + odds * threshold)
    both = np.stack([1 - moved, moved] if column else [moved, 1 - moved], axis=1)
    reached = np.where(moved >= value, column, 1 - column)
    return Predictions(both, reached, column, value, "t", MovedThreshold(value, threshold, odds))


def test_ensemble_decides_alike_at_every_prior():
    owner = np.array([0, 1, 2, 2, 3])
    study = SimpleNamespace(patient_of=owner)
    proba = np.array([[0.95, 0.2, 0.6, 0.1, 0.9], [0.3, 0.9, 0.5, 0.9, 0.7]])
    thresholds = (0.7, 0.6)
    positive = [0, 0, 0, 1]  # means .625, .55, .525 (of two slides) and .8, threshold .65
    for odds in (0.05, 1.0, 20.0):
        each = zip(proba, thresholds, strict=True)
        found = [moved_to(odds, p, t) for p, t in each]
        assert _reached_together(study, found).tolist() == positive
        # The mean of what has moved is another rule at each prior.
        now = np.mean([one.proba[0, 1] for one in found]) >= np.mean([one[3] for one in found])
        assert now == (odds < 1)
    of_the_other = [found[0], moved_to(1.0, 1 - proba[1], 0.4, column=0)]
    assert _reached_together(study, of_the_other).tolist() == positive


def test_threshold_around_a_fitted_classifier_is_evaluated(cohort, pooled_lr):
    bags, y, _ = cohort
    fixed = FixedThresholdClassifier(clone(pooled_lr).fit(bags, y), threshold=0.0)
    other = BagSequence(Bag(bag.features, patient_id=f"X{i:02d}") for i, bag in enumerate(bags))
    result = evaluate_external(fixed, other, y, n_bootstrap=20)
    assert result.summary.loc["sensitivity", "ensemble"] == 1


def genes(bags):
    ids = sorted({bag.patient_id for bag in bags})
    return pd.DataFrame(np.eye(len(ids)), index=ids)


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("with_sites", [False, True])
def test_omics_reaches_a_tuned_classifier(cohort, recorder, enabled, with_sites):
    bags, y, sites = cohort
    tuned = TunedThresholdClassifierCV(recorder, cv=FOLDS, thresholds=5)
    with sklearn.config_context(enable_metadata_routing=enabled):
        result = evaluate(
            make_pipeline("passthrough", tuned),
            bags,
            y,
            omics=genes(bags),
            groups=sites if with_sites else None,
            cv=FOLDS,
            n_bootstrap=20,
            keep_models=True,
        )
    received = result.models[0][-1].estimator_.received_
    assert received["omics"] is not None
    assert (received["groups"] is not None) == with_sites
    assert value(result)["sensitivity_tuned"] == value(result)["sensitivity"]


@pytest.mark.parametrize("enabled", [False, True])
def test_omics_reaches_searches_and_votes(cohort, recorder, enabled):
    bags, y, _ = cohort
    fixed = FixedThresholdClassifier(recorder, threshold=0.3)
    search = GridSearchCV(fixed, {"threshold": [0.3, 0.4]}, cv=FOLDS)
    vote = VotingClassifier([("r", recorder), ("other", clone(recorder))], voting="soft")
    options = {"omics": genes(bags), "cv": FOLDS, "n_bootstrap": 20, "keep_models": True}
    with sklearn.config_context(enable_metadata_routing=enabled):
        found = evaluate(search, bags, y, **options).models[0]
        voted = evaluate(vote, bags, y, **options).models[0]
    assert found.best_estimator_.estimator_.received_["omics"] is not None
    assert voted.estimators_[1].received_["omics"] is not None


def test_requests_of_the_caller_are_respected(cohort, recorder):
    bags, y, _ = cohort
    with sklearn.config_context(enable_metadata_routing=True):
        asked = clone(recorder).set_fit_request(omics="rna")
        fixed = FixedThresholdClassifier(asked, threshold=0.3)
        result = evaluate(
            fixed, bags, y, omics=genes(bags), cv=FOLDS, n_bootstrap=20, keep_models=True
        )
        assert asked.get_metadata_routing().fit.requests["omics"] == "rna"
    assert result.models[0].estimator_.received_["omics"] is not None


def test_patients_are_means(cohort, pooled_lr):
    bags, y, _ = cohort
    model = clone(pooled_lr).fit(bags, y)
    proba, _ = predictions(model, bags, [0, 1]).of_patients(bags.groups())
    expected = pd.DataFrame(model.predict_proba(bags)).groupby(bags.groups()).mean()
    np.testing.assert_allclose(proba, expected)
