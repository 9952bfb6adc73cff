"""One positive class for the study, its estimators and everything that is printed."""

import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags
from quick import quick
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from sk_momkd import Bag, BagSequence
from sk_momkd.estimators.inner_pos_labels import agreed_pos_label, set_pos_label
from sk_momkd.evaluation.comparison import compare
from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.evaluation.external import evaluate_external
from sk_momkd.evaluation.learning_curves import learning_curve
from sk_momkd.evaluation.permutation import permutation_check, seed_spread
from sk_momkd.evaluation.study import as_study

FEW = {"cv": 2, "n_bootstrap": 20}
NAMES = np.array(["HER2-", "HER2+"])


def mean_patch(bags):
    return np.array([bag.load().features.mean(axis=0) for bag in bags])


class Chooser(ClassifierMixin, BaseEstimator):
    """A classifier with a positive class, which knows the one it was fitted with."""

    def __init__(self, pos_label=None):
        self.pos_label = pos_label

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.pos_label_ = self.classes_[-1] if self.pos_label is None else self.pos_label
        self.model_ = LogisticRegression().fit(mean_patch(X), y)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(mean_patch(X))


def two_slides(n=12):
    """Patients with two slides; the slides of the last two patients differ in their label."""
    bags, y = make_bags(2 * n, patients=[f"P{i // 2:02d}" for i in range(2 * n)])
    y = np.repeat(np.arange(n) % 2, 2)
    y[[-1, -4]] = 1 - y[[-1, -4]]
    return bags, y


def test_names_of_classes_do_not_change_an_evaluation():
    bags, y = two_slides()
    clf = quick("ABMILClassifier", max_epochs=2, early_stopping=True, sampler="balanced")
    plain = evaluate(clf, bags, np.array(["neg", "pos"])[y], **FEW)
    swapped = evaluate(clf, bags, np.array(["B", "A"])[y], pos_label="A", **FEW)
    pd.testing.assert_frame_equal(plain.summary, swapped.summary)
    renamed = plain.predictions.rename(columns={"p_neg": "p_B", "p_pos": "p_A"})
    renamed = renamed.replace({"neg": "B", "pos": "A"})
    pd.testing.assert_frame_equal(renamed, swapped.predictions)
    assert plain.summary["value"]["sensitivity"] != plain.summary["value"]["specificity"]


def test_tie_of_a_patient_is_negative_whatever_the_names():
    bags = [Bag(np.ones((1, 2)), patient_id=p) for p in "AABB"]
    for names, pos_label in ((["neg", "pos"], None), (["B", "A"], "A")):
        study = as_study(bags, np.array(names)[[0, 1, 1, 1]], pos_label=pos_label)
        assert study.labels.tolist() == [0, 1]


@pytest.mark.parametrize("pos_label", [None, "HER2+"])
def test_estimator_and_evaluation_agree(pos_label):
    bags, y = make_bags(12)
    clf = make_pipeline("passthrough", Chooser(pos_label="HER2+"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(clf, bags, NAMES[y], pos_label=pos_label, keep_models=True, **FEW)
    assert result.classes == ("HER2-", "HER2+")
    assert [model[-1].pos_label_ for model in result.models] == ["HER2+", "HER2+"]


def test_evaluation_sets_the_positive_class_of_the_estimator():
    bags, y = make_bags(12)
    result = evaluate(Chooser(), bags, NAMES[y], pos_label="HER2+", keep_models=True, **FEW)
    assert {model.pos_label for model in result.models} == {"HER2+"}


@pytest.mark.parametrize(
    ("wrapped", "parameter", "expected"),
    [
        (make_pipeline("passthrough", Chooser()), "chooser__pos_label", "A"),
        (CalibratedClassifierCV(Chooser()), "estimator__pos_label", "A"),
        (GridSearchCV(make_pipeline(Chooser()), {}), "estimator__chooser__pos_label", "A"),
        # These fit what is inside on class numbers.
        (VotingClassifier([("one", Chooser())]), "one__pos_label", 0),
        (StackingClassifier([("one", make_pipeline(Chooser()))]), "one__chooser__pos_label", 0),
        (OneVsRestClassifier(Chooser()), "estimator__pos_label", 0),
        (make_pipeline(VotingClassifier([("a", Chooser())])), "votingclassifier__a__pos_label", 0),
    ],
)
def test_positive_class_reaches_the_classifier_inside(wrapped, parameter, expected):
    assert set_pos_label(wrapped, ["B", "A"]).get_params()[parameter] == expected
    assert set_pos_label(Chooser(), ["a", "b", "c"]).pos_label is None
    assert isinstance(set_pos_label(DummyClassifier(), ["B", "A"]), DummyClassifier)


def test_voting_of_our_classifiers_is_evaluated_with_the_first_class_as_the_positive_one():
    bags, y = make_bags(12)
    one = quick("ABMILClassifier", max_epochs=1)
    vote = VotingClassifier([("one", one), ("other", one)], voting="soft")
    result = evaluate(vote, bags, NAMES[y], pos_label="HER2+", **FEW)
    assert result.classes == ("HER2-", "HER2+")


@pytest.mark.parametrize(
    ("estimators", "pos_label", "said"),
    [
        ([Chooser(pos_label="a")], "b", "'b' of the evaluation and pos_label='a' of Chooser"),
        ([Chooser(pos_label="a"), Chooser(pos_label="b")], None, "contradict each other"),
        ([make_pipeline(Chooser(pos_label="a"))], "b", r"Pipeline \(chooser__pos_label\)"),
    ],
)
def test_contradictions_are_errors(estimators, pos_label, said):
    with pytest.raises(ValueError, match=said):
        agreed_pos_label(estimators, pos_label)


def test_every_entry_point_asks_its_estimators():
    bags, y = make_bags(12)
    clf = Chooser(pos_label="HER2-")
    for call in (evaluate, learning_curve, permutation_check, seed_spread):
        with pytest.raises(ValueError, match="contradict"):
            call(clf, bags, NAMES[y], pos_label="HER2+")
    with pytest.raises(ValueError, match="contradict"):
        compare({"one": clf, "other": DummyClassifier()}, bags, NAMES[y], pos_label="HER2+")


def test_every_headline_names_the_positive_class():
    bags, y = make_bags(12)
    guess, known = DummyClassifier(), {"pos_label": "HER2+", "cv": 2}
    results = [
        evaluate(guess, bags, NAMES[y], n_bootstrap=5, **known),
        compare({"a": guess, "b": guess}, bags, NAMES[y], n_bootstrap=5, **known),
        learning_curve(guess, bags, NAMES[y], fractions=[1], n_bootstrap=5, **known),
        permutation_check(guess, bags, NAMES[y], n_permutations=1, **known),
        seed_spread(guess, bags, NAMES[y], n_seeds=2, **known),
    ]
    for result in results:
        assert "positive class 'HER2+'" in str(result)
        assert "positive class &#x27;HER2+&#x27;" in result._repr_html_()


def test_three_classes_have_no_positive_one():
    bags, _ = make_bags(12)
    y = np.array(["high", "low", "medium"])[np.arange(12) % 3]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The classes are")
        assert "positive" not in str(evaluate(DummyClassifier(), bags, y, **FEW))
    with pytest.raises(ValueError, match="there are 3: 'high', 'low', 'medium'"):
        evaluate(DummyClassifier(), bags, y, pos_label="high", **FEW)


def test_names_that_mean_the_other_class_warn_once_at_the_caller():
    bags, y = make_bags(12)
    clf = quick("ABMILClassifier", max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(clf, bags, NAMES[y], **FEW)
    caught = [w for w in caught if "The classes are" in str(w.message)]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "'HER2-' is the positive class" in str(caught[0].message)


@pytest.fixture
def elsewhere():
    bags, y = make_bags(12, seed=5)
    return BagSequence(Bag(b.features, bag_id=f"X{i}") for i, b in enumerate(bags)), NAMES[y]


def test_fitted_models_bring_their_positive_class(elsewhere):
    bags, y = make_bags(12)
    models = [Chooser(pos_label="HER2+").fit(bags, NAMES[y]) for _ in range(2)]
    result = evaluate_external(models, *elsewhere, n_bootstrap=20)
    assert result.classes == ("HER2-", "HER2+")
    here = evaluate(Chooser(), bags, NAMES[y], pos_label="HER2+", keep_models=True, **FEW)
    assert evaluate_external(here, *elsewhere, n_bootstrap=20).classes == ("HER2-", "HER2+")
    with pytest.raises(ValueError, match="contradict"):
        evaluate_external(models, *elsewhere, pos_label="HER2-")


def test_external_headline_is_the_ensemble_and_says_so(elsewhere):
    bags, y = make_bags(12)
    here = evaluate(Chooser(), bags, NAMES[y], pos_label="HER2+", keep_models=True, **FEW)
    result = evaluate_external(here, *elsewhere, n_bootstrap=20)
    row = result.summary.loc["auroc"]
    assert f"AUROC {row['ensemble']:.3f}" in result.headline
    assert f"of the ensemble, {row['value']:.3f} of its models on average" in result.headline
    assert "positive class 'HER2+'" in result.headline
    assert result.summary.columns[0] == "ensemble"
    alone = evaluate_external([here.models[0]], *elsewhere, n_bootstrap=20)
    assert "ensemble" not in alone.headline
    assert f"AUROC {alone.summary.loc['auroc', 'value']:.3f}" in alone.headline
