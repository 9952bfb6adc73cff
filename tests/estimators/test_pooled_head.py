"""Logistic regression on pooled slides beside the network, in every classifier of bags."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_bags, make_omics, quick_classifier
from quick import CLASSIFIERS, quick, takes_omics
from sklearn.linear_model import LogisticRegression
from sklearn.utils._param_validation import InvalidParameterError

from sk_momkd import Bag, load_model, patch_evidence, save_model
from sk_momkd.estimators.base import BaseMILClassifier
from sk_momkd.estimators.pooled_head import PooledHead
from sk_momkd.exceptions import BagError, ModelFileError
from sk_momkd.nn.blocks import Blocks

NETWORKS = [name for name, cls in CLASSIFIERS.items() if issubclass(cls, BaseMILClassifier)]
SHORT = {"max_epochs": 1, "early_stopping": False}


def pooled(bags):
    return np.array([[*bag.features.mean(axis=0), *bag.features.std(axis=0)] for bag in bags])


def head_of(n_features=3, n_classes=2, seed=0):
    """A head that clips two of the pooled features."""
    random = np.random.default_rng(seed)
    shape = 2 * n_features
    spread = random.uniform(0.1, 0.6, size=shape)
    spread[[0, n_features + 1]] = 0.01
    return PooledHead(
        0.5,
        random.normal(size=shape),
        spread,
        random.normal(size=(n_classes, shape)),
        random.normal(size=n_classes),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_shares_of_network_and_regression(name):
    """The network is trained as without the regression, which is scikit-learn's."""
    bags, y = make_bags()
    omics = {"omics": make_omics(y)} if takes_omics(name) else {}
    alone = quick(name, **SHORT, sampler="shuffle").fit(bags, y, **omics)
    both = quick(name, **SHORT, sampler="shuffle", pooled_share=0.75).fit(bags, y, **omics)
    X = pooled(bags)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    regression = LogisticRegression(C=0.01, max_iter=1000).fit(z, y).decision_function(z)
    expected = 0.25 * alone.decision_function(bags) + 0.75 * regression
    np.testing.assert_allclose(both.decision_function(bags), expected, atol=1e-4)
    assert alone.pooled_head_ is None


def test_three_classes_and_an_ensemble():
    bags, _ = make_bags()
    y = np.arange(len(bags)) % 3
    known = {**SHORT, "sampler": "shuffle", "n_models": 2, "pooled_share": 0.999999}
    clf = quick("ABMILClassifier", **known).fit(bags, y)
    X = pooled(bags)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    regression = LogisticRegression(C=0.01, max_iter=1000).fit(z, y).predict_proba(z)
    np.testing.assert_allclose(clf.predict_proba(bags), regression, atol=1e-3)


def test_regression_learns_the_soft_labels_and_the_weights_of_the_loss():
    bags, y = make_bags(n=36)
    sample_weight = np.random.default_rng(0).uniform(0.5, 2, size=len(y))
    clf = quick_classifier(**SHORT, pooled_share=0.5, lambda_teacher=0.5, sampler="balanced")
    seen = {}

    class Spy(PooledHead):
        @classmethod
        def fit(cls, share, pooled, targets):
            seen["targets"] = targets
            return PooledHead.fit(share, pooled, targets)

    from sk_momkd.estimators import soft_labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_labels, "PooledHead", Spy)
        clf.fit(bags, y, omics=make_omics(y).iloc[:30], sample_weight=sample_weight)
    weights = seen["targets"].sum(axis=1)
    np.testing.assert_allclose(weights.mean(), 1)
    for label in (0, 1):  # each class counts as much as the other, a slide by its weight
        own = y == label
        np.testing.assert_allclose(weights[own].sum(), len(y) / 2)
        np.testing.assert_allclose(
            weights[own] / sample_weight[own], weights[own][0] / sample_weight[own][0]
        )
    targets = seen["targets"] / weights[:, None]
    hard = np.eye(2)[y]
    np.testing.assert_array_equal(targets[30:], hard[30:])
    assert (np.abs(targets[:30] - hard[:30]).max(axis=1) > 0).all()
    assert (targets[:30][hard[:30] == 1] >= 0.5).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_contributions_of_patches_sum_to_the_change_of_the_logits(n_classes):
    head, random = head_of(n_classes=n_classes), np.random.default_rng(1)
    x = torch.from_numpy(random.normal(0.4, 1.0, size=(9, 3)).astype(np.float32))
    reference = torch.from_numpy(random.normal(size=3).astype(np.float32))
    change = head.logits(x) - head.logits(reference[None])
    z = (np.concatenate([x.mean(dim=0), x.std(dim=0, correction=0)]) - head.center) / head.spread
    assert (np.abs(z) > 6).any()
    assert (np.abs(z) < 6).any()
    np.testing.assert_allclose(head.contributions(x, reference).sum(dim=0), change, atol=1e-10)


def test_contributions_of_reference_patches_are_zero():
    head, patch = head_of(), torch.tensor([0.1, -0.2, 0.3])
    found = head.contributions(patch.expand(4, 3), patch)
    np.testing.assert_allclose(found, np.zeros((4, 2)), atol=1e-7)


def test_slide_in_blocks_and_permuted_patches_give_the_same():
    head, random = head_of(), np.random.default_rng(2)
    # Far from zero, where single precision would lose the spread.
    values = random.normal(1e3, 0.5, size=(10_000, 3)).astype(np.float32)
    head = replace(head, center=head.center + np.repeat([1e3, 0.0], 3))
    parts = [values[:10], values[10:7000], values[7000:]]
    blocks = Blocks(values.shape, torch.float32, lambda: parts)
    x, mixed = torch.from_numpy(values), torch.from_numpy(random.permutation(values))
    expected = np.concatenate([values.mean(axis=0, dtype=float), values.std(axis=0, dtype=float)])
    z = np.clip((expected - head.center) / head.spread, -6, 6)
    np.testing.assert_allclose(head.logits(x), head.coef @ z + head.intercept, atol=1e-8)
    np.testing.assert_allclose(head.logits(blocks), head.logits(x), atol=1e-8)
    np.testing.assert_allclose(head.logits(mixed), head.logits(x), atol=1e-8)
    start = torch.full((3,), 1e3)
    whole = head.contributions(x, start)
    np.testing.assert_allclose(head.contributions(blocks, start), whole, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_evidence_sums_to_the_change_of_both_parts(name):
    bags, y = make_bags()
    omics = {"omics": make_omics(y)} if takes_omics(name) else {}
    clf = quick(name, **SHORT, pooled_share=0.75).fit(bags, y, **omics)
    table = patch_evidence(clf, bags[:2])
    found = table.groupby("bag_id", sort=False)["evidence_1"].sum()
    reference = [np.repeat(clf.mean_patch_[None], b.n_instances, axis=0) for b in bags[:2]]
    expected = clf.decision_function(bags[:2]) - clf.decision_function(reference)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_evidence_in_bfloat16_begins_at_the_patch_that_the_network_sees():
    bags, y = make_bags()
    bags = [bag.features + 100 for bag in bags]  # where bfloat16 has steps of 0.5
    settings = {**SHORT, "learning_rate": 1e-5, "precision": "bfloat16"}
    clf = quick("ABMILClassifier", **settings, pooled_share=0.75).fit(bags, y)
    found = patch_evidence(clf, bags[:4]).groupby("bag_id", sort=False)["evidence_1"].sum()
    start = clf.decision_function([clf.mean_patch_[None]])
    np.testing.assert_allclose(found, clf.decision_function(bags[:4]) - start, atol=1e-4)


def test_default_device_of_the_caller_is_without_effect_on_evidence():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)
    expected = patch_evidence(clf, bags[:2])
    with torch.device("meta"):  # which holds no values
        found = patch_evidence(clf, bags[:2])
    np.testing.assert_array_equal(found["evidence_1"], expected["evidence_1"])


def test_feature_that_never_varies_and_slides_of_one_patch():
    random = np.random.default_rng(0)
    bags = [Bag(np.array([[*random.normal(i % 2, 1, size=2), 5.0]])) for i in range(20)]
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.5).fit(bags, np.arange(20) % 2)
    assert np.isfinite(clf.predict_proba(bags)).all()


def test_parameter_set_after_fit_does_not_change_the_model():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)
    before = clf.predict_proba(bags)
    np.testing.assert_array_equal(clf.set_params(pooled_share=0).predict_proba(bags), before)
    assert clf.fit(bags, y).pooled_head_ is None


def test_warm_start_keeps_the_regression_and_takes_the_new_share():
    """On a few slides of another site, a new one would forget those of the first."""
    (bags, y), (others, of_others) = make_bags(), make_bags(n=8, seed=1)
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75, warm_start=True).fit(bags, y)
    first = clf.pooled_head_
    second = clf.set_params(pooled_share=0.5).fit(others, of_others).pooled_head_
    assert (first.share, second.share) == (0.75, 0.5)
    np.testing.assert_array_equal(second.coef, first.coef)
    assert clf.set_params(pooled_share=0.0).fit(others, of_others).pooled_head_ is None
    anew = clf.set_params(pooled_share=0.75, warm_start=False).fit(others, of_others)
    assert not np.array_equal(anew.pooled_head_.coef, first.coef)


def test_model_file_keeps_the_regression(tmp_path):
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)
    loaded = load_model(save_model(clf, tmp_path / "model.zip"))
    np.testing.assert_array_equal(loaded.predict_proba(bags), clf.predict_proba(bags))


def test_model_without_the_attribute_predicts_by_its_network(tmp_path):
    """As models that were saved before there was the regression."""
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT).fit(bags, y)
    expected = clf.predict_proba(bags)
    del clf.pooled_head_
    loaded = load_model(save_model(clf, tmp_path / "model.zip"))
    np.testing.assert_array_equal(loaded.predict_proba(bags), expected)


@pytest.mark.parametrize("name", ["center", "coef", "intercept"])
def test_model_file_with_a_regression_of_other_features_is_refused(tmp_path, name):
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)
    wrong = {name: getattr(clf.pooled_head_, name)[..., 1:]}
    clf.pooled_head_ = replace(clf.pooled_head_, **wrong)
    with pytest.raises(ModelFileError, match="pooled_head_ is not of 6 features, 2 classes"):
        load_model(save_model(clf, tmp_path / "model.zip"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"share": 1.0}, "a share of 1.0"),
        ({"share": float("nan")}, "a share of nan"),
        ({"coef": np.zeros((2, 12), dtype=np.float32)}, "other numbers than float64"),
    ],
)
def test_model_file_with_an_impossible_regression_is_refused(tmp_path, wrong, said):
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)
    clf.pooled_head_ = replace(clf.pooled_head_, **wrong)
    with pytest.raises(ModelFileError, match=said):
        load_model(save_model(clf, tmp_path / "model.zip"))


@pytest.mark.filterwarnings("ignore:.*features reach")
def test_features_whose_spread_overflows_are_named():
    bags, y = make_bags()
    bags = [bag.features * np.float32(1e20 if i == 3 else 1) for i, bag in enumerate(bags)]
    with pytest.raises(BagError, match=r"bag 3: the standard deviation of its patches overflows"):
        quick("ABMILClassifier", **SHORT, pooled_share=0.75).fit(bags, y)


def test_share_of_one_is_refused():
    bags, y = make_bags()
    with pytest.raises(InvalidParameterError, match="pooled_share"):
        quick("ABMILClassifier", pooled_share=1.0).fit(bags, y)
