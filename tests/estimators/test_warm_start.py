"""A warm start goes on from the fitted networks, or is refused with the reason and leaves them."""

import warnings

import numpy as np
import pytest
import torch
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.base import BaseEstimator, TransformerMixin, clone
from torch import nn

from sk_momkd import OmicsError, load_model, save_model
from sk_momkd.estimators.warm_start import EarlierFit
from sk_momkd.exceptions import TeacherError

BAGS, Y = make_bags(16)
OMICS = make_omics(Y)
OTHER_BAGS, OTHER_Y = make_bags(16, seed=1, patients=[f"Q{i:02d}" for i in range(16)])
OTHER_OMICS = make_omics(OTHER_Y, seed=1).set_axis([f"Q{i:02d}" for i in range(16)])
STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "max_epochs": 1}  # trains, and moves nothing


def fit(clf, bags=BAGS, y=Y, omics=OMICS, **known):
    known |= {"omics": omics} if type(clf).__name__ in PRIVILEGED else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clf.fit(bags, y, **known)


def weights(clf):
    """Weights of what predicts, running statistics left out."""
    return {
        f"{i}.{name}": parameter.detach().clone()
        for i, module in enumerate(clf.modules_)
        for name, parameter in module.named_parameters()
        if "omics_branch" not in name
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_warm_start_of_every_method_begins_with_the_fitted_weights(name):
    clf = fit(quick(name, max_epochs=2, n_models=2))
    before = weights(clf)
    fit(clf.set_params(warm_start=True, **STILL), OTHER_BAGS, OTHER_Y, OTHER_OMICS)
    assert_same(weights(clf), before)
    assert_same(weights(fit(clf.set_params(warm_start=False, **STILL))), weights(fit(clone(clf))))


def test_warm_start_trains_on_and_first_fit_is_an_ordinary_one():
    clf = quick("ABMILClassifier", max_epochs=3, warm_start=True)
    cold = fit(clone(clf).set_params(warm_start=False))
    first = weights(fit(clf))
    assert_same(first, weights(cold))
    fit(clf)
    assert clf.n_iter_ == len(clf.history_) == 3
    # A fit that begins anew would end with the weights of the first.
    assert any(not torch.equal(w, first[name]) for name, w in weights(clf).items())
    assert vars(clf).get("_earlier") is None


def test_priors_and_patients_are_of_the_new_data_and_patients_of_both():
    clf = fit(quick("ABMILClassifier", warm_start=True, max_epochs=1, early_stopping=True))
    keep = np.r_[:12, 12:16:2]
    fit(clf, OTHER_BAGS[keep], OTHER_Y[keep])
    assert clf.class_prior_.tolist() == pytest.approx([8 / 14, 6 / 14])
    assert set(clf.validation_["patient_id"]) < {f"Q{i:02d}" for i in range(16)}
    assert clf.training_patients_.patients_met(BAGS).all()
    assert clf.training_patients_.patients_met(OTHER_BAGS[keep]).all()
    assert not clf.training_patients_.patients_met(make_bags(2, patients=["X", "Z"])[0]).any()


@pytest.mark.slow
def test_omics_transformer_stays_the_fitted_one_and_memory_the_learned_one():
    clf = fit(quick("MoMKDClassifier", warm_start=True, max_epochs=2))
    transformer, before = clf.omics_transformer_, weights(clf)
    shuffled = OTHER_OMICS[OTHER_OMICS.columns[::-1]].assign(extra=1.0)
    fit(clf.set_params(**STILL), OTHER_BAGS, OTHER_Y, shuffled)
    assert clf.omics_transformer_ is transformer
    assert_same(weights(clf), before)  # among them the memory
    fit(clf, OTHER_BAGS, OTHER_Y, None)
    assert clf.n_paired_ == 0
    assert clf.module_.omics_branch is not None
    assert_same(weights(clf), before)


REFUSED = {
    "features of a patch: 6": lambda clf: fit(clf, make_bags(16, n_features=5)[0]),
    r"classes: \[0, 1\], but this fit has \[0, 1, 2\]": lambda clf: fit(clf, y=np.arange(16) % 3),
    "positive class: 1": lambda clf: fit(clf.set_params(pos_label=0)),
    "n_models: 1": lambda clf: fit(clf.set_params(n_models=2)),
    "Changed since the last fit: dim from 16 to 8": lambda clf: fit(clf.set_params(dim=8)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_warm_start_that_does_not_fit_is_refused_and_leaves_the_model(message):
    clf = fit(quick("ABMILClassifier", max_epochs=1, warm_start=True))
    before = clf.predict_proba(BAGS)
    with pytest.raises(ValueError, match=message):
        REFUSED[message](clf)
    assert (clf.predict_proba(BAGS) == before).all()
    assert clf.n_features_in_ == 6
    assert "_earlier" not in vars(clf)


class Doubles(TransformerMixin, BaseEstimator):
    """Does not name its genes."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return 2 * np.asarray(X)


def prepared(clf, omics, bags=BAGS):
    """Vectors that a fit would train on; the networks of the earlier fit are made up."""
    clf._earlier = None if not hasattr(clf, "modules_") else EarlierFit.of(clf)
    cohort, generators = clf._validate(bags, Y, None, None)
    training = np.arange(16)
    unread = clf._unread(cohort[training])
    return clf._prepare_omics(omics, cohort, training, None, generators, unread)[0].vectors


def test_genes_in_another_order_are_selected_by_name_whatever_the_transformer():
    clf = quick("MKDClassifier", omics_transformer=Doubles(), warm_start=True)
    vectors = prepared(clf, OMICS)
    vars(clf).update(clf._networks([nn.Linear(1, 1)], vectors.shape[1]))
    shuffled = OMICS[OMICS.columns[::-1]].assign(extra=1.0)
    np.testing.assert_array_equal(prepared(clf, shuffled), vectors)
    vars(clf).update(clf._networks([nn.Linear(1, 1)], vectors.shape[1]))
    with pytest.raises(OmicsError, match="1 of 12 genes are missing in omics: 'G3'"):
        prepared(clf, OMICS.drop(columns="G3"))
    vars(clf).update(clf._networks([nn.Linear(1, 1)], vectors.shape[1]))
    del clf._input_genes  # as in a model of an older version
    with pytest.raises(OmicsError, match="Doubles, which does not name"):
        prepared(clf, shuffled)


def test_teacher_of_a_warm_start_is_of_the_new_data():
    clf = fit(quick("ABMILClassifier", warm_start=True, max_epochs=1))
    before = weights(clf)
    clf.set_params(**STILL, lambda_teacher=0.5)
    clf.fit(OTHER_BAGS, OTHER_Y, omics=OTHER_OMICS.iloc[:12])
    assert (clf.lambda_teacher_, clf.n_paired_) == (0.5, 12)
    clf.fit(OTHER_BAGS, OTHER_Y)
    assert (clf.lambda_teacher_, clf.n_paired_) == (0, 0)
    assert_same(weights(clf), before)
    with pytest.raises(TeacherError):
        clf.fit(OTHER_BAGS, OTHER_Y, omics=OTHER_OMICS[OTHER_Y == 0])
    assert_same(weights(clf), before)


def test_teacher_of_a_warm_start_is_fitted_on_the_genes_of_the_transformer(monkeypatch):
    clf = fit(quick("MKDClassifier", warm_start=True, max_epochs=1, lambda_teacher=0.5))
    known, genes = [], OMICS.columns.tolist()
    monkeypatch.setattr(
        type(clf), "_make_soft_labels", lambda self, table, *_: known.extend(table.genes)
    )
    shuffled = OTHER_OMICS[genes[::-1]].assign(extra=1.0)
    prepared(clf, shuffled, OTHER_BAGS)
    assert known == genes


@pytest.mark.slow
def test_warm_start_with_other_genes_or_unknown_transformer_is_refused(tmp_path):
    clf = fit(quick("MKDClassifier", max_epochs=1, warm_start=True))
    with pytest.raises(ValueError, match="1 of 12 genes are missing in omics: 'G3'"):
        fit(clf, omics=OMICS.drop(columns="G3"))
    loaded = load_model(save_model(clf, tmp_path / "model.zip"))
    with pytest.raises(ValueError, match="omics transformer is not known"):
        fit(loaded)
    assert fit(loaded, omics=None).n_iter_ == 1
    whole = load_model(save_model(clf, tmp_path / "whole.zip", include_omics=True))
    assert fit(whole).n_paired_ > 0


def test_warm_start_with_checkpoints_goes_on_only_from_the_same_weights(tmp_path):
    clf = fit(quick("ABMILClassifier", max_epochs=1))
    path = save_model(clf, tmp_path / "model.zip")
    warm = {"warm_start": True, "training__checkpoint_dir": tmp_path / "run"}
    first = fit(load_model(path).set_params(**warm))
    again = fit(load_model(path).set_params(**warm))
    assert_same(weights(first), weights(again))
    with pytest.raises(ValueError, match="the fitted weights that a warm start begins with"):
        fit(first)
