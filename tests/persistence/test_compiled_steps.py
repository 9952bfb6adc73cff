"""Students that scikit-learn runs in compiled code: saved, and refused where they do not fit."""

import copy
import warnings

import numpy as np
import pytest
from persistence.fitted import BAGS, Y
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sk_momkd import BagPooling, ModelFileError, PrivilegedClassifier, load_model, save_model
from sk_momkd.persistence.compiled_steps import require_sound
from sk_momkd.persistence.stored_trees import StoredTree

X = BagPooling().fit_transform(BAGS)
PAIR = [("a", LogisticRegression()), ("b", RandomForestClassifier(2, random_state=0))]
STUDENTS = {
    "forest": RandomForestClassifier(3, random_state=0),
    "extra_trees": ExtraTreesClassifier(3, max_leaf_nodes=4, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
    "ada_boost": AdaBoostClassifier(n_estimators=2, random_state=0),
    "bagging": BaggingClassifier(n_estimators=2, max_features=0.5, random_state=0),
    "svc": SVC(),
    "neighbours": KNeighborsClassifier(3, algorithm="brute"),
    "weighted_neighbours": KNeighborsClassifier(3, algorithm="brute", weights="distance", p=1),
    "bayes": GaussianNB(),
    "mlp": MLPClassifier(3, max_iter=3, random_state=0),
    "lda": LinearDiscriminantAnalysis(),
    "voting": VotingClassifier(PAIR, voting="soft"),
    "stacking": StackingClassifier(PAIR, cv=2),
    "calibrated": CalibratedClassifierCV(SVC(), cv=2),
}


def again(model, folder):
    save_model(model, folder / "model.zip")
    return load_model(folder / "model.zip")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("privileged", [False, True])
def test_student_predicts_the_same_after_loading(tmp_path, name, privileged):
    student = STUDENTS[name]
    if privileged:
        student = PrivilegedClassifier(student, random_state=0)
    model = make_pipeline(BagPooling(), StandardScaler(), student).fit(BAGS, Y)
    loaded = again(model, tmp_path)
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, method):
            found, expected = (getattr(m, method)(BAGS) for m in (loaded, model))
            np.testing.assert_array_equal(found, expected)


def test_forest_of_weighted_slides_keeps_no_weights(tmp_path):
    forest = BaggingClassifier(n_estimators=2, random_state=0)
    weights = np.arange(len(Y)) + 1.0
    model = make_pipeline(StandardScaler(), forest).fit(
        X, Y, baggingclassifier__sample_weight=weights
    )
    assert getattr(again(model, tmp_path)[-1], "_sample_weight", None) is None


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (GradientBoostingClassifier(n_estimators=2), "RandomForestClassifier.*joblib.dump"),
        (HistGradientBoostingClassifier(max_iter=2), "RandomForestClassifier.*joblib.dump"),
        (KNeighborsClassifier(algorithm="kd_tree"), "algorithm='brute'.*joblib.dump"),
        (KNeighborsClassifier(algorithm="ball_tree"), "algorithm='brute'.*joblib.dump"),
        (KNeighborsClassifier(algorithm="brute", metric="hamming"), "algorithm='brute'.*minkowski"),
        (
            RandomForestClassifier(2).fit(X, np.stack([Y, Y], axis=1)),
            "one label per slide.*joblib.dump",
        ),
        (SVC(kernel="precomputed").fit(X @ X.T, Y), "kernel of linear.*joblib.dump"),
    ],
)
def test_student_that_cannot_be_saved_says_what_to_do(tmp_path, student, said):
    student = student if hasattr(student, "classes_") else student.fit(X, Y)
    with pytest.raises(ModelFileError, match=said):
        save_model(make_pipeline(student), tmp_path / "model")


def trees(name="forest"):
    return copy.deepcopy(STUDENTS[name]).fit(X, Y)


def changed(**values):
    return lambda own: own.update(values)


def at(name, position, value):
    def change(own):
        own[name] = own[name].copy()
        own[name][position] = value

    return change


UNSOUND = {
    "narrow tree": ("tree", changed(n_features_in_=1)),
    "tree of unknown width": ("tree", lambda own: own.pop("n_features_in_")),
    "tree of other classes": ("tree", changed(n_classes_=5)),
    "narrow forest": ("forest", changed(n_features_in_=1)),
    "forest of unknown width": ("forest", lambda own: own.pop("n_features_in_")),
    "forest that checks nothing": ("forest", changed(_validate_X_predict=np.sqrt)),
    "forest of tuples": ("forest", lambda own: own.update(estimators_=tuple(own["estimators_"]))),
    "forest of more classes": ("forest", changed(n_classes_=10**9)),
    "tree elsewhere": ("bayes", lambda own: own.update(tree_=trees("tree").tree_)),
    "narrow vectors": ("svc", changed(n_features_in_=1)),
    "vectors of no class": ("svc", at("_n_support", 0, 0)),
    "negative counts": ("svc", lambda own: own.update(_n_support=own["_n_support"] * [-1, 1])),
    "more classes": ("svc", changed(classes_=np.arange(9))),
    "many places": ("svc", changed(support_=np.zeros(99, np.int32))),
    "short intercept": ("svc", changed(_intercept_=np.zeros(0))),
    "short coefficients": ("svc", lambda own: own.update(_dual_coef_=own["_dual_coef_"][:, :1])),
    "long probabilities": ("svc", changed(_probA=np.zeros(9), _probB=np.zeros(9))),
    "sparse": ("svc", changed(_sparse=True)),
    "other machine": ("svc", changed(_impl="one_class")),
    "own kernel": ("svc", changed(kernel="precomputed")),
    "vectors that check nothing": ("svc", changed(_validate_for_predict=np.sqrt)),
    "label beyond the classes": ("neighbours", at("_y", 0, 7)),
    "negative label": ("neighbours", at("_y", 0, -1)),
    "fewer labels": ("neighbours", lambda own: own.update(_y=own["_y"][:2])),
    "more neighbours": ("neighbours", changed(n_neighbors=99)),
    "narrow points": ("neighbours", changed(n_features_in_=1)),
    "other metric": ("neighbours", changed(metric="haversine")),
    "parameters of a metric": ("neighbours", changed(metric_params={"w": np.ones(1)})),
    "several outputs": ("neighbours", changed(outputs_2d_=True)),
    "private method": ("stacking", changed(stack_method_=["predict_proba", "_dense_predict"])),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_parts_that_do_not_fit_together_are_refused(what):
    name, change = UNSOUND[what]
    student = trees(name)
    require_sound([{"steps": student}], "model")
    change(vars(student))
    with pytest.raises(ModelFileError, match=r"model holds a .* do not fit together"):
        require_sound([{"steps": student}], "model")


def test_trees_and_steps_are_found_in_all_containers():
    tree, svc = trees("tree").tree_, trees("svc")
    svc.n_features_in_ = 1
    for value, said in ((tree, "belongs to no estimator"), (svc, "do not fit together")):
        in_array = np.empty(1, dtype=object)
        in_array[0] = value
        for held in ([value], (value,), {"a": value}, {value}, in_array):
            with pytest.raises(ModelFileError, match=said):
                require_sound(VotingClassifier([("a", held)]), "model")


def test_private_method_and_fitted_isolation_forest_are_refused():
    fixed = FixedThresholdClassifier(trees("svc"), response_method="_dense_predict")
    for value in (fixed, IsolationForest(n_estimators=2).fit(X)):
        with pytest.raises(ModelFileError, match="do not fit together"):
            require_sound(value, "model")


UNSOUND_TREES = {
    "above itself": at("integers", (0, 0), 0),
    "beyond the end": at("integers", (0, 1), 99),
    "one child": at("integers", (0, 1), -1),
    "another feature": at("integers", (0, 2), 99),
    "negative feature": at("integers", (0, 2), -2),
    "no nodes": lambda own: own.update({k: own[k][:0] for k in ("integers", "floats", "values")}),
    "fewer values": lambda own: own.update(values=own["values"][:1]),
    "more outputs": changed(n_outputs=2),
    "fewer classes": changed(n_classes=np.ones(1, np.int64)),
    "no classes": changed(n_classes=np.zeros(1, np.int64)),
    "classes in text": changed(n_classes=np.array(["2"])),
    "features in text": changed(n_features="9"),
    "fewer names": lambda own: own.update(names=own["names"][1:]),
    "other names": lambda own: own.update(names=["x", *own["names"][1:]]),
    "a name twice": lambda own: own.update(names=[own["names"][1], *own["names"][1:]]),
    "smaller numbers": lambda own: own.update(integers=own["integers"].astype(np.int32)),
    "missing part": lambda own: own.pop("floats"),
}


@pytest.mark.parametrize("what", UNSOUND_TREES)
def test_arrays_that_are_no_tree_are_refused(what):
    stored = StoredTree(trees("tree").tree_)
    UNSOUND_TREES[what](vars(stored))
    with pytest.raises(ModelFileError, match="file holds a tree that is none"):
        stored.restored("file")


def test_depth_is_that_of_the_nodes():
    tree = trees("tree").tree_
    assert StoredTree(tree).restored("file").max_depth == tree.max_depth > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = StoredTree(tree).restored("file").decision_path(X.astype(np.float32))
    np.testing.assert_array_equal(
        path.toarray(), tree.decision_path(X.astype(np.float32)).toarray()
    )
