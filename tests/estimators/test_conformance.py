"""What holds for every classifier: scikit-learn's whole battery, and ours on ragged bags."""

import copy
import pickle
from functools import partial
from itertools import product

import h5py
import numpy as np
import pytest
import torch
from conftest import make_bags, make_omics, mean_auc
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_class_weight_classifiers,
    check_sample_weight_equivalence_on_dense_data,
    estimator_checks_generator,
    parametrize_with_checks,
)

from sk_momkd import BagPooling, BagSequence, InstanceTransformer, read_bags
from sk_momkd.evaluation.fold_fit import tuned_threshold
from sk_momkd.exceptions import BagError

# Quick to learn scikit-learn's blobs of 300 bags with one instance each.
LIGHT = {"TransMILClassifier": {"n_heads": 1, "max_epochs": 4, "batch_size": 8}}
LIGHT["GHANetClassifier"] = LIGHT["TransMILClassifier"] | {"learning_rate": 0.01, "n_groups": 2}
BATTERY = [
    quick(name, **({"batch_size": 32, "learning_rate": 0.02} | LIGHT.get(name, {})))
    for name in CLASSIFIERS
]
of_each = pytest.mark.parametrize("name", CLASSIFIERS)


IN_EVERY_RUN = {"ABMILClassifier"}  # MoMKD takes three times as long
QUICKEST, LONG = {"ABMILClassifier", "MoMKDClassifier"}, pytest.mark.long
WEIGHTS, CLASS_WEIGHT = (
    "check_sample_weight_equivalence_on_dense_data",
    "check_class_weight_classifiers",
)
RANDOM_BATCHES = (
    "Batches are drawn at random. Where nothing is, weights are as good as copies, see "
    "test_bag_weights.py; weights of 0 always leave out."
)
TOO_FEW = (
    "Weights of 0 leave nine bags, of which one is of class 0: too few for the inner validation "
    "part. Without early_stopping, batches are drawn at random."
)
SHARES = (
    "Probabilities refer to the class shares of the training data whatever class_weight is. With "
    "prior='sampler' it passes, see below."
)


def expected_to_fail(estimator):
    """Reasons of the checks that fail, which is strict: a check that passes is a failed test."""
    if isinstance(estimator, BagPooling):
        return {}
    return {WEIGHTS: TOO_FEW if estimator.early_stopping else RANDOM_BATCHES, CLASS_WEIGHT: SHARES}


@parametrize_with_checks(
    [*(clf for clf in BATTERY if type(clf).__name__ in IN_EVERY_RUN), BagPooling()],
    expected_failed_checks=expected_to_fail,
)
def test_sklearn_check(estimator, check):
    check(estimator)


@pytest.mark.long
@parametrize_with_checks(
    [clf for clf in BATTERY if type(clf).__name__ not in IN_EVERY_RUN],
    expected_failed_checks=expected_to_fail,
)
def test_sklearn_check_of_the_other_methods(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "n_checks"),
    [*((clf, 67 if hasattr(clf, "transform") else 62) for clf in BATTERY), (BagPooling(), 45)],
    ids=lambda value: type(value).__name__,
)
def test_sklearn_battery_is_complete(estimator, n_checks):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    # scikit-learn itself skips one, check_array_api_input, where SCIPY_ARRAY_API is not set.
    assert len([name for name in names if name != "check_array_api_input"]) >= n_checks
    for name in ("check_methods_sample_order_invariance", "check_methods_subset_invariance"):
        assert name in names
    assert not estimator.__sklearn_tags__()._skip_test
    assert set(expected_to_fail(estimator)) <= set(names)


@pytest.mark.parametrize(
    "clf",
    [
        pytest.param(clf, marks=pytest.mark.slow if type(clf).__name__ in QUICKEST else LONG)
        for clf in BATTERY
    ],
    ids=lambda clf: type(clf).__name__,
)
def test_sklearn_check_of_class_weight_passes_on_probabilities_as_trained(clf):
    epochs = {"max_epochs": 40} if type(clf).__name__ == "DSMILClassifier" else {}
    clf = clone(clf).set_params(prior="sampler", early_stopping=False, **epochs)
    check_class_weight_classifiers(type(clf).__name__, clf)


@pytest.mark.parametrize("clf", BATTERY, ids=lambda clf: type(clf).__name__)
def test_sklearn_check_of_sample_weight_fails_for_the_stated_reason(clf):
    said = "Class .* has a single patient" if clf.early_stopping else "is not equivalent"
    with pytest.raises((ValueError, AssertionError), match=said):
        check_sample_weight_equivalence_on_dense_data(type(clf).__name__, clone(clf))


def known(name, omics):
    return {"omics": omics} if name in PRIVILEGED else {}


def weights(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


# --- learning ------------------------------------------------------------------------------


QUICK = {("ABMILClassifier", "float32"), ("MoMKDClassifier", "float32")}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.long)
        for case in product(CLASSIFIERS, ("float32", "bfloat16"))
    ],
)
def test_ragged_bags_are_learned(name, precision):
    bags, y = make_bags(40)
    fresh, fresh_y = make_bags(40, seed=1)
    aucs = []
    for seed in range(3):
        clf = quick(name, max_epochs=10, precision=precision, random_state=seed)
        clf.fit(bags, y, **known(name, make_omics(y)))
        aucs.append(roc_auc_score(fresh_y, clf.decision_function(fresh)))
    # By chance the mean of three is .5 with a standard deviation of .05.
    assert np.mean(aucs) >= 0.7
    assert clf.precision_ == precision
    assert all(p.dtype == torch.float32 for p in clf.module_.parameters())


@pytest.mark.long
@of_each
def test_three_classes_are_learned(name):
    random = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 14)
    shift = {"a": [3, 0, 0], "b": [0, 3, 0], "c": [0, 0, 3]}
    X = [random.normal(size=(4 + i % 3, 3)) + shift[label] for i, label in enumerate(y)]
    make = partial(quick, name, max_epochs=12, validation_fraction=0.25)
    assert mean_auc(make, X, y) >= 0.8
    clf = make(max_epochs=1).fit(X, y)
    assert clf.predict_proba(X).shape == clf.decision_function(X).shape == (42, 3)


@of_each
def test_unified_protocol_is_the_same_for_every_method(name):
    unified = CLASSIFIERS[name].preset("unified", random_state=3)
    unified.device_ = "cpu"
    reference = CLASSIFIERS["MoMKDClassifier"]()
    reference.device_ = "cpu"
    shared = vars(reference._training_config()) | {"early_stopping": True}
    shared |= {"validation_fraction": reference.validation_fraction}
    found = unified.get_params(deep=False) | vars(unified._training_config())
    if name in {"MKDClassifier", "TDCClassifier"}:  # the batch is part of these methods
        shared |= {"batch_size": 16}
    assert {k: found[k] for k in shared} == shared
    assert unified.random_state == 3
    with pytest.raises(ValueError, match="unified"):
        CLASSIFIERS[name].preset("best")


@of_each
def test_first_preset_is_the_defaults(name):
    cls = CLASSIFIERS[name]
    first = cls.preset(next(iter(cls._presets)), prior="training")
    assert first.get_params() == cls().get_params()


# --- prediction ----------------------------------------------------------------------------


@of_each
def test_predict_a_bag_is_bit_identical_whatever_stands_beside_it(name, cohort):
    bags, y, omics = cohort
    clf = quick(name, max_epochs=2).fit(bags, y, **known(name, omics))
    together = clf.predict_proba(bags)
    for i in (0, 7, 23):
        np.testing.assert_array_equal(clf.predict_proba(bags[[i]])[0], together[i])
    np.testing.assert_array_equal(clf.predict_proba(bags[::-1]), together[::-1])
    np.testing.assert_allclose(together.sum(axis=1), 1)
    difference = clf.decision_function(bags)
    np.testing.assert_array_equal(difference > 0, clf.predict(bags) == 1)


@pytest.mark.fast
@of_each
def test_predict_odd_but_valid_bags(name, cohort):
    bags, y, _ = cohort
    clf = quick(name, max_epochs=1).fit([*bags, np.ones((1, 6)), np.ones((1, 6))], [*y, 0, 1])
    assert np.isfinite(clf.predict_proba([np.ones((n, 6)) for n in (1, 2, 3, 9, 50)])).all()


@of_each
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predict_any_block_size_gives_the_same(name, precision, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for i, n in enumerate((40, 60)):
        with h5py.File(tmp_path / f"S{i}.h5", "w") as file:
            file["features"] = random.normal(size=(n, 6)).astype(np.float32)
            file["coords"] = np.stack(np.divmod(np.arange(n), 8), axis=1) * 256
    large = read_bags(tmp_path)
    clf = quick(name, max_epochs=1, precision=precision).fit(*make_bags())
    whole = clf.predict_proba(large)
    monkeypatch.setattr("sk_momkd.estimators.prediction._BLOCK_SIZE", 16)
    np.testing.assert_allclose(clf.predict_proba(large), whole, atol=1e-5)


# --- scikit-learn's tools ------------------------------------------------------------------


@of_each
def test_same_seed_same_bits_and_global_state_is_left_alone(name, cohort):
    bags, y, omics = cohort
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fits = [
        quick(name, max_epochs=2, random_state=seed).fit(bags, y, **known(name, omics))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights(fits[0]), weights(fits[1]))
    assert not torch.equal(weights(fits[0]), weights(fits[2]))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@of_each
def test_clone_and_pickle_keep_parameters_and_predictions(name, cohort):
    bags, y, omics = cohort
    clf = quick(name, max_epochs=1).fit(bags, y, **known(name, omics))
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(bags), clf.predict_proba(bags))
    assert clone(clf).get_params() == clf.get_params()
    with pytest.raises(NotFittedError):
        clone(clf).predict(bags)


@of_each
def test_cross_validation_search_and_pipeline(name, cohort):
    bags, y, omics = cohort
    clf = quick(name, max_epochs=1)
    proba = cross_val_predict(clf, bags, y, params=known(name, omics), method="predict_proba", cv=3)
    assert proba.shape == (24, 2)
    grid = GridSearchCV(clf, {"learning_rate": [0.01, 0.02]}, cv=2, error_score="raise")
    assert grid.fit(bags, y, **known(name, omics)).predict(bags).shape == (24,)
    pipe = make_pipeline(InstanceTransformer(StandardScaler()), clf)
    routed = {f"{pipe.steps[-1][0]}__{key}": value for key, value in known(name, omics).items()}
    assert np.isfinite(cross_val_score(pipe, bags, y, params=routed, cv=2)).all()


@of_each
def test_fit_groups_are_kept_whole_and_labels_come_back(name, cohort):
    bags, y, _ = cohort
    labels = np.array(["HER2-", "HER2+"])[y]
    clf = quick(name, max_epochs=1, validation_fraction=0.5)
    clf.fit(bags, labels, groups=np.arange(24) // 2 % 6)
    assert set(clf.predict(bags)) <= set(labels)


# --- documentation and messages ------------------------------------------------------------


@of_each
def test_docstring_has_the_sections_of_a_method(name):
    text = CLASSIFIERS[name].__doc__
    for section in ("Notes", "References", "Examples", "See Also"):
        assert f"{section}\n" in text


@of_each
def test_errors_name_the_bag(name, cohort):
    bags, y, _ = cohort
    broken = [*(bag.features for bag in bags)]
    broken[5] = np.full((3, 6), np.nan)
    with pytest.raises(BagError, match="bag 5"):
        quick(name).fit(broken, y)
    clf = quick(name, max_epochs=1).fit(bags, y)
    with pytest.raises(BagError, match=r"X has 3 features in bag 0.*expecting 6"):
        clf.predict([np.ones((2, 3))])


@of_each
def test_fit_omics_without_use_for_it_is_refused(name, cohort):
    bags, y, omics = cohort
    if name in PRIVILEGED:
        return
    with pytest.raises(TypeError, match="omics"):
        quick(name).fit(bags, y, omics=omics)


@of_each
def test_validation_part_as_the_model_sees_it_is_kept(name):
    bags, y = make_bags()
    labels = np.array(["benign", "malignant"])[y]
    clf = quick(name, early_stopping=True).fit(bags, labels)
    kept = clf.validation_
    assert list(kept.columns) == ["bag_id", "patient_id", "y", "p_benign", "p_malignant"]
    by_id = dict(zip(bags.ids, range(len(bags)), strict=True))
    rows = [by_id[bag_id] for bag_id in kept["bag_id"]]
    assert kept["y"].tolist() == labels[rows].tolist()
    expected = clf.predict_proba(bags[rows])
    np.testing.assert_allclose(kept[["p_benign", "p_malignant"]].to_numpy(), expected)
    assert quick(name, early_stopping=False).fit(bags, labels).validation_ is None
    assert copy.copy(clf).validation_.equals(kept)


@of_each
def test_pickle_holds_no_patient_unless_asked_for(name):
    bags, y = make_bags()
    named = BagSequence(bag.with_ids(f"SLIDE{i}", f"PATIENT{i}") for i, bag in enumerate(bags))
    omics = {"omics": make_omics(y).set_axis(named.patient_ids)}
    omics = omics if name in PRIVILEGED else {}
    clf = quick(name, max_epochs=1, early_stopping=True).fit(named, y, **omics)
    saved = pickle.dumps(clf)
    assert not any(word in saved for word in (b"SLIDE", b"PATIENT"))
    loaded = pickle.loads(saved)
    with pytest.raises(AttributeError, match="training__pickle_validation=True before"):
        loaded.validation_.head()
    np.testing.assert_array_equal(loaded.predict_proba(bags), clf.predict_proba(bags))
    assert tuned_threshold(loaded, [0, 1]) == tuned_threshold(clf, [0, 1])
    assert tuned_threshold(loaded, [1, 0]) == tuned_threshold(clf, [1, 0])
    again = pickle.loads(pickle.dumps(clf.set_params(training__pickle_validation=True)))
    assert again.validation_.equals(clf.validation_)
