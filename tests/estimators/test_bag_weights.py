"""Weights of bags and classes in the loss: copies, zeros, samplers, priors, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, quick, takes_omics
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, cross_validate

from sk_momkd.estimators.bag_weights import draw_shares, loss_weights
from sk_momkd.estimators.prior import shares_in_loss
from sk_momkd.training.batches import BagDataset, GraphSpec, forward
from sk_momkd.training.config import weighted_total

CLASSES = np.array(["neg", "pos"])
LABELS = np.repeat([0, 1], [6, 2])
of_each = pytest.mark.parametrize("name", CLASSIFIERS)

# One batch of all bags, without chance: then a weight is as good as copies.
FULL = {"batch_size": 64, "sampler": "shuffle", "early_stopping": False, "max_epochs": 3}
FULL |= {"training__optimizer": "sgd"}  # Adam's steps depend on the sign of gradients about zero
WITHOUT_CHANCE = {
    "ABMILClassifier": {"dropout": 0.0},
    "DSMILClassifier": {},
    "DTFDMILClassifier": {"n_chunks": 1},
    "GHANetClassifier": {"dropout": 0.0, "keep": 1.0},
    "MKDClassifier": {"dropout": 0.0}
    | dict.fromkeys(("lambda_skd", "lambda_coral", "lambda_orthogonality"), 0.0),
    "WiKGClassifier": {"dropout": 0.0},
}


class Unscaled(TransformerMixin, BaseEstimator):
    """Omics as it is."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X)


def weigh(sample_weight=None, class_weight=None, *, sampler="shuffle", paired=None, labels=LABELS):
    weights = None if sample_weight is None else np.array(sample_weight, dtype=float)
    return loss_weights(
        labels, weights, class_weight, sampler=sampler, classes=CLASSES, paired=paired
    )


def fitted(name, bags, y, weights=None, *, omics=None, **overrides):
    settings = FULL | WITHOUT_CHANCE.get(name, {}) | overrides
    known = {} if omics is None or not takes_omics(name) else {"omics": omics}
    return quick(name, **settings).fit(bags, y, sample_weight=weights, **known)


def parameters(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


# --- the weights themselves ----------------------------------------------------------------


def test_weights_are_none_where_nothing_weighs():
    assert weigh() is None


@pytest.mark.parametrize("scale", [1, 7.5])
def test_weights_of_bags_have_mean_one(scale):
    weights = weigh(scale * np.array([1, 1, 2, 4, 1, 1, 3, 3])).bags
    np.testing.assert_allclose(weights, np.array([1, 1, 2, 4, 1, 1, 3, 3]) / 2)


def test_weights_of_paired_bags_have_mean_one_among_them():
    paired = np.array([1, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    weights = weigh([1, 2, 9, 9, 9, 9, 3, 9], paired=paired).paired
    np.testing.assert_allclose(weights[paired], [0.5, 1, 1.5])


def test_weights_under_the_balanced_sampler_count_within_a_class():
    weights = weigh([1, 2, 3, 1, 2, 3, 100, 300], sampler="balanced").bags
    np.testing.assert_allclose(weights, [0.5, 1, 1.5, 0.5, 1, 1.5, 0.5, 1.5])
    assert (weights * draw_shares(LABELS, "balanced"))[LABELS == 1].sum() == pytest.approx(0.5)


def test_class_weight_balanced_gives_classes_the_same_total():
    weights = weigh(class_weight="balanced").bags
    np.testing.assert_allclose(weights, [2 / 3] * 6 + [2.0] * 2, rtol=1e-6)
    weights = weigh([1, 1, 1, 1, 1, 7, 5, 1], "balanced").bags
    assert weights[LABELS == 0].sum() == pytest.approx(weights[LABELS == 1].sum())
    assert weights[5] == pytest.approx(7 * weights[0])


def test_class_weight_balanced_changes_nothing_under_the_balanced_sampler():
    np.testing.assert_array_equal(weigh(class_weight="balanced", sampler="balanced").bags, 1)


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_class_weight_by_label_is_the_ratio_of_weights(sampler):
    weights = weigh(class_weight={"pos": 3.0}, sampler=sampler).bags
    assert weights[6] == pytest.approx(3 * weights[0])
    assert (weights * draw_shares(LABELS, sampler)).sum() == pytest.approx(1)


def test_shares_in_the_loss_follow_sampler_and_weights():
    def shares(sampler, **weights):
        found = weigh(sampler=sampler, **weights)
        return shares_in_loss(LABELS, None if found is None else found.bags, sampler, 2)

    np.testing.assert_allclose(shares("shuffle"), [0.75, 0.25])
    np.testing.assert_allclose(shares("balanced"), [0.5, 0.5])
    for sampler in ("shuffle", "balanced"):
        np.testing.assert_allclose(shares(sampler, class_weight="balanced"), [0.5, 0.5])
    np.testing.assert_allclose(shares("balanced", class_weight={"pos": 3}), [0.25, 0.75])
    np.testing.assert_allclose(shares("shuffle", class_weight={"pos": 3}), [0.5, 0.5])
    heavy = [1] * 6 + [9, 9]
    np.testing.assert_allclose(shares("shuffle", sample_weight=heavy), [0.25, 0.75])
    np.testing.assert_allclose(shares("balanced", sample_weight=heavy), [0.5, 0.5])


# --- fits -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_CHANCE)
def test_weights_are_as_good_as_copies_in_one_batch_without_chance(name):
    bags, y = make_bags(10)
    weights = np.array([1, 3, 2, 1, 1, 2, 1, 1, 2, 1])
    copies = np.repeat(np.arange(10), weights)
    omics = make_omics(y)[:8]  # two bags have none
    omics.iloc[:, 0] += 0.5
    given = {"omics": omics}
    if takes_omics(name):  # copies would weigh in a fitted one
        given["omics_transformer"] = Unscaled()
    weighted = fitted(name, bags, y, weights, **given)
    copied = fitted(name, bags[copies], y[copies], **given)
    plain = fitted(name, bags, y, **given)
    torch.testing.assert_close(parameters(weighted), parameters(copied), rtol=1e-3, atol=2e-5)
    assert (parameters(weighted) - parameters(plain)).abs().max() > 1e-3
    np.testing.assert_allclose(weighted.class_prior_, copied.class_prior_)
    np.testing.assert_allclose(weighted.sampled_prior_, copied.sampled_prior_)


def test_weights_in_the_objective_of_momkd_are_as_good_as_copies():
    """Its memory starts from all patches, of which copies have more: so one loss is compared."""
    bags, y = make_bags(10)
    omics, paired = make_omics(y).to_numpy(np.float32), np.arange(10) < 7
    clf = quick("MoMKDClassifier", max_epochs=1, early_stopping=False).fit(bags, y, omics=omics)
    module, objective = clf.module_.eval(), clf._make_loss()
    weights = np.array([1, 3, 2, 1, 1, 2, 1, 1, 2, 1])

    def total(rows, found):
        data = BagDataset(
            bags[rows],
            y[rows],
            GraphSpec(),
            6,
            omics=omics[rows],
            paired=paired[rows],
            weights=found,
        )
        batch = data.batch(range(len(rows)))
        terms = objective.terms(forward(module, batch, training=True), batch.y)
        assert set(terms) == set(objective.weights)
        of_bags = objective.bag_weights(batch, "cpu")
        return weighted_total(terms, objective.weights, of_bags).item()

    known = {"sampler": "shuffle", "classes": CLASSES, "paired": paired}
    weighted = total(np.arange(10), loss_weights(y, weights.astype(float), None, **known))
    assert weighted == pytest.approx(total(np.repeat(np.arange(10), weights), None), rel=1e-5)
    assert weighted != pytest.approx(total(np.arange(10), None), rel=1e-3)


@of_each
def test_weights_of_one_number_change_nothing(name):
    bags, y = make_bags(8)
    one, other = (fitted(name, bags, y, w, max_epochs=1) for w in (None, np.full(8, 3.0)))
    assert torch.equal(parameters(one), parameters(other))


@of_each
def test_weight_of_zero_leaves_the_bag_out(name):
    bags, y = make_bags(10)
    weights = np.where(np.arange(10) == 3, 0, 1 + np.arange(10) % 2)
    rest = np.flatnonzero(weights)
    omics = make_omics(y)
    settings = {"batch_size": 4, "sampler": "balanced", "max_epochs": 1, "omics": omics}
    zero = fitted(name, bags, y, weights, **settings)
    without = fitted(name, bags[rest], y[rest], weights[rest], **settings)
    assert torch.equal(parameters(zero), parameters(without))


def test_positions_and_rows_are_those_of_the_bags_of_fit_beside_weights_of_zero():
    bags, y = make_bags(12)
    weights = np.where(np.arange(12) < 2, 0.0, 1.0)
    split = [(np.arange(6), np.arange(6, 12))]
    omics = make_omics(y).to_numpy()
    clf = quick(
        "MoMKDClassifier", max_epochs=1, early_stopping=True, training__validation_split=split
    )
    clf.fit(bags, y, omics=omics, sample_weight=weights)
    assert clf.validation_["bag_id"].tolist() == list(bags[6:].ids)
    assert clf.n_paired_ == 4
    few = quick("ABMILClassifier", early_stopping=True, training__validation_split=[([0, 3], [12])])
    with pytest.raises(ValueError, match="beyond the 12 bags"):
        few.fit(bags, y, sample_weight=weights)


def test_class_weight_moves_probabilities_as_trained_alone():
    bags, y = make_bags(16)
    rare = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:3]]
    bags, y = bags[rare], CLASSES[y[rare]]
    p = {}
    for prior in ("training", "sampler"):
        for weight in (None, "balanced", {"pos": 200.0}):
            clf = fitted("ABMILClassifier", bags, y, class_weight=weight, prior=prior)
            p[prior, str(weight)] = clf.predict_proba(bags)[:, 1].mean()
    assert p["sampler", "None"] < p["sampler", "balanced"] < p["sampler", "{'pos': 200.0}"]
    assert p["sampler", "{'pos': 200.0}"] > 0.5
    assert p["training", "{'pos': 200.0}"] < 0.5


def test_validation_part_is_weighted_by_sample_weight_alone():
    bags, y = make_bags(24)
    few = {"early_stopping": True, "validation_fraction": 0.25, "max_epochs": 1}
    plain = fitted("ABMILClassifier", bags, y, **few)
    table = plain.validation_.set_index("bag_id").loc[lambda t: t.index]
    place = [bags.ids.tolist().index(bag) for bag in table.index]
    weights = np.ones(24)
    weights[place] = np.arange(1, len(place) + 1)
    clf = fitted("ABMILClassifier", bags, y, weights, class_weight={1: 5.0}, prior="sampler", **few)
    table = clf.validation_
    own = weights[[bags.ids.tolist().index(bag) for bag in table["bag_id"]]]
    p_own = np.where(table["y"] == 1, table["p_1"], table["p_0"])
    loss = np.average(-np.log(p_own), weights=own)
    assert clf.history_["valid_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    pairs = [
        (a * b, (p > q) + 0.5 * (p == q))
        for p, a, t in zip(table["p_1"], own, table["y"], strict=True)
        for q, b, u in zip(table["p_1"], own, table["y"], strict=True)
        if (t, u) == (1, 0)
    ]
    auc = np.average([won for _, won in pairs], weights=[pair for pair, _ in pairs])
    assert clf.history_["valid_auc"].iloc[-1] == pytest.approx(auc)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1.0] * 7, r"shape \(7,\), expected one number for each of the 8 bags"),
        (np.ones((8, 1)), r"shape \(8, 1\)"),
        (2.0, r"shape \(\)"),
        ([1.0] * 5 + [-1.0, np.nan, 1.0], r"2 values of sample_weight .* \(-1\) for bag 'S05'"),
        ([1.0] * 7 + [np.inf], r"1 values .* \(inf\) for bag 'S07'"),
        ([1.0] * 7 + [None], r"\(nan\) for bag 'S07'"),
        (["high"] * 8, "must be numbers"),
        ([0.0] * 8, "All values of sample_weight are zero"),
        ([0, 1] * 4, r"0 for all bags of class 'neg'"),
    ],
)
def test_sample_weight_that_is_no_weight_raises_naming_the_bag(weights, match):
    bags, y = make_bags(8)
    with pytest.raises(ValueError, match=match):
        quick("ABMILClassifier").fit(bags, CLASSES[y], sample_weight=weights)


@pytest.mark.parametrize(
    ("class_weight", "match"),
    [
        ({"pos": 2.0, "other": 1.0}, r"class_weight has \['other'\].*classes are \['neg', 'pos'\]"),
        ({1: 2.0}, r"class_weight has \[1\]"),
        ({"pos": 0.0}, "class_weight of 'pos' must be a number above 0"),
        ({"pos": np.nan}, "class_weight of 'pos'"),
        ({"pos": "2"}, "class_weight of 'pos'"),
        ("even", "class_weight"),
        ([1.0, 2.0], "class_weight"),
    ],
)
def test_class_weight_of_other_classes_or_no_number_raises(class_weight, match):
    bags, y = make_bags(8)
    with pytest.raises(ValueError, match=match):
        quick("ABMILClassifier", class_weight=class_weight).fit(bags, CLASSES[y])


def test_sample_weight_with_ids_is_joined_by_id():
    bags, y = make_bags(8)
    weights = pd.Series(np.arange(1.0, 9.0), index=bags.ids)
    one = fitted("ABMILClassifier", bags, y, weights, max_epochs=1)
    other = fitted("ABMILClassifier", bags, y, weights[::-1], max_epochs=1)
    assert torch.equal(parameters(one), parameters(other))


# --- scikit-learn's routing ------------------------------------------------------------------


@of_each
def test_sample_weight_can_be_requested(name):
    clf = CLASSIFIERS[name]()
    with config_context(enable_metadata_routing=True):
        assert clf.set_fit_request(sample_weight=True) is clf
        assert clf.get_metadata_routing().fit.requests["sample_weight"] is True


def test_sample_weight_is_routed_in_cross_validation_and_search():
    bags, y = make_bags(12)
    weights = np.arange(1.0, 13.0)
    seen = []

    class Recorder(CLASSIFIERS["ABMILClassifier"]):
        def fit(self, X, y, *, omics=None, groups=None, sample_weight=None):
            seen.append(dict(zip(X.ids, sample_weight, strict=True)))
            self.classes_ = np.unique(y)
            self.module_ = None
            return self

        def score(self, X, y):
            return 0.5

    with config_context(enable_metadata_routing=True):
        clf = Recorder().set_fit_request(sample_weight=True)
        known = {"sample_weight": weights}
        cross_validate(clf, bags, y, params=known, cv=3)
        GridSearchCV(clf, {"dropout": [0.1, 0.2]}, cv=2).fit(bags, y, **known)
    own = dict(zip(bags.ids, weights, strict=True))
    assert [len(part) for part in seen] == [8] * 3 + [6] * 4 + [12]
    assert all(part[bag] == own[bag] for part in seen for bag in part)
