"""Any classifier with an omics teacher: exact soft targets, no leak, and the chosen weight."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from quick import CLASSIFIERS, quick
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, NuSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    PrivilegedClassifier,
    TeacherError,
    align_omics,
    delong_test,
    load_model,
    save_model,
)
from sk_momkd.data.omics import as_omics
from sk_momkd.data.positive_class import positive_class
from sk_momkd.estimators.cross_fitted_teacher import cross_fit
from sk_momkd.estimators.privileged import seeded_clone
from sk_momkd.estimators.soft_targets import (
    at_class_shares,
    fit_last,
    mixed_targets,
    require_weights,
    weighted_copies,
)
from sk_momkd.estimators.teacher_evidence import (
    Evidence,
    auroc_and_influence,
    margins,
    within_class_correlation,
)
from sk_momkd.exceptions import OmicsError, PairingWarning


def cohort(n=60, seed=0, n_features=4):
    """Table with patients as index, labels, and omics of the patients in another order."""
    random = np.random.default_rng(seed)
    cause = random.normal(size=n)
    y = (cause + random.normal(size=n) > 0).astype(int)
    names = [f"P{i:03d}" for i in range(n)]
    X = random.normal(size=(n, n_features))
    X[:, 0] += cause
    omics = pd.DataFrame(cause[:, None] + random.normal(size=(n, 6)), index=names)
    return pd.DataFrame(X, index=names), y, omics.sample(frac=1, random_state=seed)


class FirstGene(ClassifierMixin, BaseEstimator):
    """Its logit is the first gene; it remembers in `seen` whom each fit saw."""

    seen: list = []  # noqa: RUF012  (shared by clones on purpose)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen.append(set(X.index))
        return self

    def decision_function(self, X):
        return X.to_numpy()[:, 0]


@parametrize_with_checks([PrivilegedClassifier(LogisticRegression())])
def test_sklearn_check(estimator, check):
    check(estimator)


# --- soft targets --------------------------------------------------------------------------


def test_weighted_copies_are_exact_soft_targets():
    X, y, _ = cohort()
    hard, soft = np.eye(2)[y], np.random.default_rng(1).dirichlet([1, 1], size=len(y))
    targets = mixed_targets(hard, soft, np.ones(len(y), bool), 0.75)
    model = LogisticRegression(C=0.3, tol=1e-10, max_iter=1000)
    fit_last(model, X.to_numpy(), np.array([0, 1]), y, targets)
    # At the minimum of cross-entropy with soft targets plus the penalty, the gradient is zero.
    error = model.predict_proba(X.to_numpy())[:, 1] - (0.25 * y + 0.75 * soft[:, 1])
    np.testing.assert_allclose(X.to_numpy().T @ error + model.coef_[0] / 0.3, 0, atol=1e-4)
    assert error.sum() == pytest.approx(0, abs=1e-4)


def test_soft_labels_are_shifted_to_the_shares_of_the_labels():
    soft = np.array([0.2, 0.5, 0.9, 0.6])
    found = at_class_shares(np.stack([1 - soft, soft], axis=1), np.eye(2)[[0, 0, 0, 1]])
    np.testing.assert_allclose(found.mean(axis=0), [0.75, 0.25])
    assert np.ptp(logit(found[:, 1]) - logit(soft)) < 1e-7
    three = at_class_shares(np.full((4, 3), 1 / 3), np.eye(3)[[0, 0, 1, 2]])
    np.testing.assert_allclose(three, [[0.5, 0.25, 0.25]] * 4)


def test_samples_without_omics_keep_their_labels():
    hard = np.eye(2)[[0, 1]]
    targets = mixed_targets(hard, np.array([[0.4, 0.6]]), np.array([True, False]), 0.5)
    np.testing.assert_allclose(targets, [[0.7, 0.3], [0, 1]])


def test_fit_given_weight_is_the_classifier_on_the_soft_labels():
    X, y, omics = cohort()
    clf = PrivilegedClassifier(LogisticRegression(), teacher=FirstGene(), weight=1.0)
    clf.fit(X, y, omics=omics)
    z = omics.loc[X.index, 0].to_numpy(np.float32)
    soft = expit(2 * z / z.std())
    soft = at_class_shares(np.stack([1 - soft, soft], axis=1), np.eye(2)[y])
    expected = fit_last(LogisticRegression(), X, np.array([0, 1]), y, soft)
    np.testing.assert_allclose(clf.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    assert clf.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-3)
    assert (clf.weight_, clf.n_paired_, len(clf.teacher_report_)) == (1, 60, 0)


def test_fit_pipeline_fits_its_first_steps_on_the_samples_and_the_last_on_copies():
    X, y, omics = cohort()
    partly = omics[omics.index.str[-1] != "3"]  # samples without omics have one copy
    nested = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), LogisticRegression()))
    clf = PrivilegedClassifier(nested, weight=0.5, random_state=0).fit(X, y, omics=partly)
    np.testing.assert_allclose(clf.estimator_[0].mean_, X.mean())
    scaled = StandardScaler().fit_transform(X)
    alone = PrivilegedClassifier(LogisticRegression(), weight=0.5, random_state=0)
    alone.fit(pd.DataFrame(scaled, index=X.index), y, omics=partly)
    np.testing.assert_allclose(clf.predict_proba(X), alone.predict_proba(scaled), atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        *(RidgeClassifier(), LogisticRegression(), SVC(kernel="linear"), SGDClassifier()),
        DecisionTreeClassifier(max_depth=1),
        HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5),
    ],
    ids=lambda inner: type(inner).__name__,
)
def test_balanced_classes_are_those_of_the_labels(inner):
    inner = seeded_clone(inner, 0).set_params(class_weight="balanced")
    random = np.random.default_rng(0)
    y, classes = (np.arange(80) % 8 == 0).astype(int), np.array(["high", "low"])
    X = random.normal(size=(80, 3)) + y[:, None]
    targets = mixed_targets(np.eye(2)[y], random.dirichlet([1, 1], 80), np.ones(80, bool), 0.5)
    found = fit_last(inner, X, classes, y, targets)
    expected = clone(inner).set_params(class_weight=None)
    samples, numbers, weights = weighted_copies(targets)
    weights *= np.array([80 / 140, 80 / 20])[numbers]
    expected.fit(X[samples], classes[numbers], sample_weight=weights)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    assert (found.predict(X) == "low").sum() > 10
    assert found.class_weight == "balanced"


def test_balanced_classes_are_the_same_with_a_teacher_of_almost_no_weight():
    X, y, _ = cohort(80)
    y = np.where(np.arange(80) % 4 == 0, y, 0)
    targets = mixed_targets(np.eye(2)[y], np.full((80, 2), 0.5), np.ones(80, bool), 1e-9)
    found = fit_last(RidgeClassifier(class_weight="balanced"), X, np.array([0, 1]), y, targets)
    expected = RidgeClassifier(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(found.decision_function(X), expected.decision_function(X), atol=1e-6)


def test_automatic_early_stopping_does_not_count_copies():
    random = np.random.default_rng(0)
    y = np.arange(5100) % 2
    X, targets = random.normal(size=(5100, 1)), np.full((5100, 2), 0.5)
    model = HistGradientBoostingClassifier(max_iter=1, max_leaf_nodes=2)
    fit_last(model, X, np.array([0, 1]), y, targets)
    assert not model.do_early_stopping_
    assert model.early_stopping == "auto"


@pytest.mark.parametrize("weight", ["auto", 0.0])
def test_fit_without_teacher_is_the_classifier_itself(weight):
    X, y, omics = cohort()
    omics = None if weight == "auto" else omics
    clf = PrivilegedClassifier(LogisticRegression(), weight=weight).fit(X, y, omics=omics)
    expected = LogisticRegression().fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    assert clf.weight_ == 0
    assert "weight 0" in clf.teacher_verdict_


# --- ids, folds and scikit-learn's tools ---------------------------------------------------


def test_teachers_and_students_see_no_label_of_a_held_out_patient():
    X, y, omics = cohort()
    FirstGene.seen = []
    rows, groups = omics.index.get_indexer(X.index), np.arange(len(y)) // 2
    found = cross_fit(
        FirstGene(),
        as_omics(omics),
        rows,
        y,
        groups,
        classes=[0, 1],
        random_state=0,
        pairs=True,
    )
    folds = dict(zip(X.index, found.sample_folds, strict=True))
    seen = [{folds[name] for name in names} for names in FirstGene.seen]
    assert sorted(map(len, seen)) == [3] * 10 + [4] * 5
    assert np.ptp(found.sample_folds.reshape(-1, 2), axis=1).max() == 0
    assert np.isfinite(found.logits).all()
    assert len(found.soft_labels(0.5, without=2)) == (found.sample_folds != 2).sum()


def test_folds_without_omics_are_folds_like_others():
    X, y, omics = cohort(120)
    sites = np.arange(120) % 12
    rows = np.where(sites < 4, omics.index.get_indexer(X.index), -1)
    empty = set()
    for seed in range(12):
        found = cross_fit(
            *(FirstGene(), as_omics(omics), rows, y, sites),
            classes=[0, 1],
            random_state=seed,
            pairs=True,
        )
        assert found.n_folds == found.sample_folds.max() + 1  # the last may have no omics
        assert np.isfinite(found.held_out_logits).all()
        for fold in range(found.n_folds):
            paired = (found.patients >= 0) & (found.sample_folds != fold)
            soft = found.soft_labels(0.5, without=fold)
            np.testing.assert_allclose(soft.sum(axis=1), np.ones(paired.sum()), rtol=1e-6)
        empty |= set(range(found.n_folds)) - set(found.patient_folds)
    assert found.n_folds - 1 in empty


@pytest.fixture(scope="module")
def bag_cohort():
    """Two slides per patient, named labels, and omics of most patients."""
    X, y, omics = cohort(80)
    random = np.random.default_rng(3)
    bags = BagSequence(
        Bag(random.normal(size=(3, 4)) + row, bag_id=f"{name}-{k}", patient_id=name)
        for name, row in zip(X.index, X.to_numpy(), strict=True)
        for k in range(2)
    )
    return bags, np.repeat(np.array(["low", "high"])[y], 2), omics.iloc[:70]


def student(**parameters):
    pooled = make_pipeline(BagPooling(), StandardScaler(), LogisticRegression())
    return PrivilegedClassifier(pooled, random_state=0, pos_label="high", **parameters)


def test_fit_bags_of_patients_without_some_omics(bag_cohort):
    bags, y, omics = bag_cohort
    clf = student().fit(bags, y, omics=omics)
    assert clf.classes_.tolist() == ["high", "low"]
    assert (clf.pos_label_, clf.n_paired_, clf.n_features_in_) == ("high", 140, 4)
    assert clf.weight_ in clf.teacher_report_.index
    assert set(clf.predict(bags)) == {"low", "high"}
    proba = clf.predict_proba(bags)
    np.testing.assert_array_equal(clf.predict(bags) == "low", proba[:, 1] > 0.5)
    np.testing.assert_array_equal(clf.decision_function(bags) > 0, proba[:, 1] > 0.5)
    again = pickle.loads(pickle.dumps(student().fit(bags, y, omics=omics[::-1])))
    np.testing.assert_array_equal(again.predict_proba(bags), proba)
    assert not hasattr(clf, "transform")


def test_save_model_keeps_predictions_and_the_verdict(bag_cohort, tmp_path):
    bags, y, omics = bag_cohort
    clf = student(weight=0.5).fit(bags, y, omics=omics)
    loaded = load_model(save_model(clf, tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(bags), clf.predict_proba(bags))
    assert loaded.teacher_verdict_ == clf.teacher_verdict_


def test_loaded_model_moves_the_classifier_inside(bag_cohort, tmp_path):
    bags, y, _ = bag_cohort
    inside = quick("ABMILClassifier", max_epochs=1, early_stopping=False)
    clf = PrivilegedClassifier(inside, weight=0.0).fit(bags, y)
    clf.estimator.device = clf.estimator_.device = "xpu"
    path = save_model(clf, tmp_path / "model.zip")
    loaded = load_model(path, device="cpu")
    assert loaded.estimator.device == loaded.estimator_.device == "cpu"
    with pytest.warns(UserWarning, match="absent here"):
        assert load_model(path).estimator_.device == "auto"


def test_interrupted_refit_leaves_the_earlier_model():
    class Interrupted(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise KeyboardInterrupt

    X, y, _ = cohort()
    clf = PrivilegedClassifier(LogisticRegression(), weight=0.0).fit(X, y)
    expected = clf.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(estimator=Interrupted()).fit(X, 1 - y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_ambiguous_names_warn_at_the_call_of_fit():
    X, y, _ = cohort()
    with pytest.warns(UserWarning, match="pos_label=") as caught:
        PrivilegedClassifier(LogisticRegression()).fit(X, np.array(["HER2-", "HER2+"])[y])
    assert caught[0].filename == __file__


class NamesPositive(LogisticRegression):
    """Asks for the positive class as the classifiers of bags do."""

    def __init__(self, pos_label=None):
        super().__init__()
        self.pos_label = pos_label

    def fit(self, X, y, sample_weight=None):
        self.pos_label_ = positive_class(np.unique(y).tolist(), self.pos_label)
        return super().fit(X, y, sample_weight)


HER2 = np.array(["HER2-", "HER2+"])


def test_ambiguous_names_warn_once_around_a_classifier_that_asks_too():
    X, y, rna = cohort()
    clf = PrivilegedClassifier(make_pipeline(StandardScaler(), NamesPositive()))
    with warnings.catch_warnings(record=True, action="always") as caught:
        clf.fit(X, HER2[y], omics=rna)
    assert len([w for w in caught if "pos_label=" in str(w.message)]) == 1
    assert clf.estimator_[-1].pos_label_ == clf.pos_label_ == "HER2-"


def test_positive_class_is_the_one_that_any_of_both_names():
    X, y, _ = cohort()
    for outer, inner in (("HER2+", None), (None, "HER2+")):
        clf = PrivilegedClassifier(NamesPositive(inner), pos_label=outer).fit(X, HER2[y])
        assert clf.estimator_.pos_label_ == clf.pos_label_ == "HER2+"
        assert (clf.pos_label, clf.estimator.pos_label) == (outer, inner)
    with pytest.raises(ValueError, match="contradict each other"):
        PrivilegedClassifier(NamesPositive("HER2-"), pos_label="HER2+").fit(X, HER2[y])


def test_cross_validation_and_search(bag_cohort):
    bags, y, omics = bag_cohort
    table = align_omics(omics, bags)
    scores = cross_val_score(
        student(weight=0.5), bags, y, params={"omics": table}, cv=2, error_score="raise"
    )
    assert np.isfinite(scores).all()
    grid = GridSearchCV(student(), {"weight": [0.0, 1.0]}, cv=2, error_score="raise")
    assert grid.fit(bags, y, omics=table).predict(bags).shape == (160,)
    copy = clone(student(weight=0.25))
    assert (copy.weight, copy.get_params()["estimator__logisticregression__C"]) == (0.25, 1.0)


def test_ids_are_those_of_the_index_or_of_patient_ids():
    X, y, omics = cohort()
    clf = PrivilegedClassifier(LogisticRegression(), weight=1.0, random_state=0)
    by_index = clf.fit(X, y, omics=omics).predict_proba(X)
    named = clone(clf).fit(X.to_numpy(), y, omics=omics, patient_ids=X.index)
    np.testing.assert_allclose(named.predict_proba(X.to_numpy()), by_index)
    in_order = clone(clf).fit(X.to_numpy(), y, omics=omics.loc[X.index].to_numpy())
    np.testing.assert_allclose(in_order.predict_proba(X.to_numpy()), by_index)
    with pytest.raises(OmicsError, match="no ids"):
        clone(clf).fit(X.to_numpy(), y, omics=omics)
    bags = [Bag(np.ones((1, 2)), patient_id=name) for name in X.index]
    with pytest.raises(ValueError, match="bags have ids of their own"):
        clone(clf).fit(bags, y, patient_ids=X.index)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (KNeighborsClassifier(), "takes no sample_weight"),
        (CalibratedClassifierCV(LogisticRegression()), "Put it around PrivilegedClassifier"),
        (SGDClassifier(early_stopping=True), "SGDClassifier with early_stopping=True splits"),
        (GradientBoostingClassifier(n_estimators=3, n_iter_no_change=2), "n_iter_no_change=None"),
        (RandomForestClassifier(5, oob_score=accuracy_score), "Set oob_score=False"),
        (BaggingClassifier(SGDClassifier(early_stopping=True), 2), "Set early_stopping=False"),
        (RandomForestClassifier(5, class_weight="balanced_subsample"), "Give a dict"),
        (
            BaggingClassifier(RidgeClassifier(class_weight="balanced"), 2),
            "of RidgeClassif",
        ),
    ],
)
def test_fit_unsuitable_classifier_is_refused_with_omics(inner, message):
    X, y, omics = cohort()
    with pytest.raises(TypeError, match=message):
        PrivilegedClassifier(make_pipeline(StandardScaler(), inner)).fit(X, y, omics=omics)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some inputs do not have OOB scores")
        assert PrivilegedClassifier(inner).fit(X, y).predict(X).shape == (60,)


@pytest.mark.parametrize("kind", [SVC, NuSVC])
def test_probabilities_of_inner_folds_are_refused(kind):
    require_weights(kind())
    with pytest.raises(TypeError, match="Set probability=False"):
        require_weights(kind(probability=True))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_validation_part_of_copies_is_refused(name):
    classifier = quick(name)
    require_weights(classifier.set_params(early_stopping=False, class_weight="balanced"))
    with pytest.raises(TypeError, match=r"with early_stopping=True .* Set early_stopping=False"):
        require_weights(classifier.set_params(early_stopping=True))


def test_few_paired_patients_give_weight_zero_with_the_reason():
    X, y, omics = cohort()
    few = omics.loc[[*X.index[y == 0][:2], *X.index[y == 1]]]
    with pytest.warns(PairingWarning, match="Only 2 training patients of class 0 have omics"):
        clf = PrivilegedClassifier(LogisticRegression()).fit(X, y, omics=few)
    assert clf.weight_ == 0
    assert "fewer than the 10" in clf.teacher_verdict_
    single = few.drop(X.index[y == 0][0])  # a given weight needs each class in two patients
    with (
        pytest.warns(PairingWarning, match="Only .* bags have omics"),
        pytest.raises(TeacherError, match="class 0 is in 1"),
    ):
        PrivilegedClassifier(LogisticRegression(), weight=0.5).fit(X, y, omics=single)


# --- the chosen weight ---------------------------------------------------------------------


def test_influences_give_the_variance_of_delong():
    random = np.random.default_rng(0)
    y = np.arange(40) % 2
    scores = random.normal(size=(40, 2)) + y[:, None] * [1.0, 0.5]
    found = [auroc_and_influence(y, np.stack([-s, s], axis=1)) for s in scores.T]
    expected = delong_test(y, scores[:, 0], scores[:, 1])
    assert found[0][0] - found[1][0] == pytest.approx(expected.difference)
    error = np.linalg.norm(found[0][1] - found[1][1]) * np.sqrt(20 / 19)
    assert error == pytest.approx(expected.standard_error)


def test_margins_and_correlation_within_classes():
    np.testing.assert_allclose(margins(np.array([[1.0, 3.0]])), [[-2, 2]])
    assert margins(np.log([[0.5, 0.25, 0.25]]))[0, 0] == pytest.approx(0)
    y = np.array([0, 0, 1, 1])
    one, other = np.array([0.0, 1, 10, 11]), np.array([1.0, 0, 50, 51])
    both = [np.stack([-v, v], axis=1) for v in (one, other)]
    assert within_class_correlation(y, *both) == pytest.approx(0)


def evidence(teacher=1.0, visible=1.0, gain=1.0, n=1500):
    """Scores of a cohort whose cause the teacher sees; students have the less noise by `gain`."""
    random = np.random.default_rng(0)
    cause, noise = random.normal(size=(2, n))
    y = (cause + 0.5 * random.normal(size=n) > 0).astype(int)
    students = 0.6 * visible * cause + noise * (1.6 - 0.25 * gain * np.arange(5)[:, None])
    logits = teacher * 2 * cause + random.normal(size=n)
    two = [np.stack([0 * v, v], axis=-1) for v in (students, logits)]
    return Evidence(y, two[0], np.arange(n), two[1])


@pytest.mark.parametrize(
    ("found", "weights", "reason"),
    [
        (evidence(), {1.0}, "best"),
        (evidence(gain=-0.4), {0.0}, "best"),
        (evidence(teacher=0.0), {0.0}, "no better than chance"),
        (evidence(visible=0.0), {0.0}, "not seen without omics"),
        (evidence(teacher=0.22), {0.25}, "not clearly better"),
    ],
    ids=["gain", "harm", "ignorant", "invisible", "inferior"],
)
def test_decision_follows_the_evidence(found, weights, reason):
    weight, sentence = found.decision()
    assert weight in weights
    assert reason in sentence
    assert f"weight {weight:g}" in sentence


@pytest.mark.long
@pytest.mark.parametrize("what", ["labels", "omics"])
def test_nothing_to_gain_is_weight_zero(what):
    chosen = []
    for seed in range(6):
        X, y, omics = cohort(60, seed=seed)
        order = np.random.default_rng(seed).permutation(60)
        y = y[order] if what == "labels" else y
        omics = omics.set_axis(omics.index[order]) if what == "omics" else omics
        clf = PrivilegedClassifier(LogisticRegression(), random_state=0).fit(X, y, omics=omics)
        chosen.append(clf.weight_)
    # A quarter of the random teachers at most passes both gates at 2 and 2.5 standard errors.
    assert chosen.count(0) >= 4


def test_three_classes():
    X, _, omics = cohort(90)
    y = np.digitize(omics.loc[X.index].mean(axis=1), [-0.6, 0.6])
    clf = PrivilegedClassifier(LogisticRegression(), random_state=0).fit(X, y, omics=omics)
    assert clf.predict_proba(X).shape == (90, 3)
    assert clf.pos_label_ is None
    assert len(clf.teacher_report_) == 5
