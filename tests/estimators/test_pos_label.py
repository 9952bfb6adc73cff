"""`pos_label`: names of classes never change a model, whichever of them sorts last."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.base import clone

from sk_momkd import (
    ABMILClassifier,
    cohort_scores,
    explain_prediction,
    gene_attributions,
    memory_prototypes,
    memory_usage,
    patch_affinities,
    patch_attention,
    top_patches,
)

SETTINGS = {
    "max_epochs": 2,
    "early_stopping": True,
    "validation_fraction": 0.3,
    "sampler": "balanced",
    "batch_size": 4,
}
# The positive class sorts last under the first pair of names, and first under the second.
PLAIN = {"names": np.array(["neg", "pos"]), "pos_label": None}
SWAPPED = {"names": np.array(["B", "A"]), "pos_label": "A"}
RENAMED = {"neg": "B", "pos": "A"}
of_each = pytest.mark.parametrize("name", CLASSIFIERS)


def fitted(name, naming, **settings):
    bags, y = make_bags(12)
    if name == "MoMKDClassifier":
        settings = {"lambda_teacher": 0.5, "memory__reseed_unused": True} | settings
    known = {"omics": make_omics(y)} if name in PRIVILEGED else {}
    settings = SETTINGS | settings | {"pos_label": naming["pos_label"]}
    clf = quick(name, **settings)
    return clf.fit(bags, naming["names"][y], **known), bags


@of_each
def test_relabelled_classes_give_the_same_model_bit_for_bit(name):
    (plain, bags), (swapped, _) = fitted(name, PLAIN), fitted(name, SWAPPED)
    assert plain.classes_.tolist() == ["neg", "pos"]
    assert swapped.classes_.tolist() == ["A", "B"]
    assert (plain.pos_label_, swapped.pos_label_) == ("pos", "A")
    for key, tensor in plain.module_.state_dict().items():
        assert torch.equal(tensor, swapped.module_.state_dict()[key]), key
    proba, reversed_proba = plain.predict_proba(bags), swapped.predict_proba(bags)
    assert np.array_equal(proba, reversed_proba[:, ::-1])
    assert len(np.unique(proba[:, 1])) > 1
    assert np.array_equal(plain.decision_function(bags), -swapped.decision_function(bags))
    assert [RENAMED[c] for c in plain.predict(bags)] == swapped.predict(bags).tolist()
    valid = plain.validation_.rename(columns={"p_neg": "p_B", "p_pos": "p_A"})
    valid["y"] = valid["y"].map(RENAMED)
    pd.testing.assert_frame_equal(valid, swapped.validation_[valid.columns])
    history = plain.history_.drop(columns="dur")
    history.columns = renamed(history)
    pd.testing.assert_frame_equal(history, swapped.history_.drop(columns="dur"))
    maps = patch_attention(plain, bags)  # DSMIL has one for each class
    maps.columns = renamed(maps)
    pd.testing.assert_frame_equal(maps, patch_attention(swapped, bags), check_like=True)


def test_default_is_the_label_that_sorts_last():
    default, chosen = (
        fitted("ABMILClassifier", PLAIN | {"pos_label": pos_label}) for pos_label in (None, "pos")
    )
    assert np.array_equal(default[0].predict_proba(default[1]), chosen[0].predict_proba(chosen[1]))


def renamed(names):
    return [re.sub(r"\bneg|(?<=_)neg", "B", re.sub(r"\bpos|(?<=_)pos", "A", str(n))) for n in names]


@pytest.fixture(scope="module")
def both():
    """MoMKD under both pairs of names, and its bags."""
    (plain, bags), (swapped, _) = (fitted("MoMKDClassifier", naming) for naming in (PLAIN, SWAPPED))
    return plain, swapped, bags


def test_columns_of_transform_carry_the_names_of_their_classes(both):
    plain, swapped, bags = both
    names = swapped.get_feature_names_out().tolist()
    assert renamed(plain.get_feature_names_out()) == names
    assert names[-1].startswith("memory_A_")  # the memory of the positive class comes last
    assert np.array_equal(plain.transform(bags), swapped.transform(bags))


def test_tables_of_the_memory_carry_the_names_of_their_classes(both):
    plain, swapped, bags = both
    one, other = (memory_prototypes(clf) for clf in (plain, swapped))
    assert np.array_equal(one.X, other.X)
    assert renamed(one.obs["class"]) == other.obs["class"].tolist()
    assert one.uns["cosine"]["within_pos"] == other.uns["cosine"]["within_A"]
    one, other = (patch_affinities(clf, bags) for clf in (plain, swapped))
    assert np.array_equal(one.X, other.X)
    assert renamed(one.var_names) == other.var_names.tolist()
    one, other = (cohort_scores(clf, bags) for clf in (plain, swapped))
    assert np.array_equal(one.X, other.X)
    assert renamed(one.var["class"]) == other.var["class"].tolist()
    assert np.array_equal(one.obs["p_pos"], other.obs["p_A"])
    one, other = (top_patches(clf, bags) for clf in (plain, swapped))
    pd.testing.assert_frame_equal(one.assign(**{"class": renamed(one["class"])}), other)


def test_usage_counts_bags_in_the_memory_of_their_own_label(both):
    plain, swapped, bags = both
    y = np.arange(len(bags)) % 2
    one = memory_usage(plain, bags, PLAIN["names"][y])
    other = memory_usage(swapped, bags, SWAPPED["names"][y])
    assert np.array_equal(one.components["own_class"], other.components["own_class"])
    assert renamed(one.components["class"]) == other.components["class"].tolist()
    assert renamed(one.bags) == other.bags.columns.tolist()
    assert np.array_equal(one.bags["cosine_pos"], other.bags["cosine_A"])


def test_explanation_is_of_the_positive_class(both):
    plain, swapped, bags = both
    one, other = (explain_prediction(c, bags[:2], random_state=0) for c in (plain, swapped))
    assert other.bags["target"].tolist() == ["A", "A"]
    assert np.array_equal(one.bags["probability"], other.bags["probability"])
    assert np.array_equal(one.components["attribution"], other.components["attribution"])
    assert renamed(one.components["class"]) == other.components["class"].tolist()


def test_genes_move_patients_toward_the_same_class(both):
    plain, swapped, _ = both
    rna = make_omics(np.arange(12) % 2)
    one, other = (gene_attributions(c, rna, random_state=0, n_samples=20) for c in (plain, swapped))
    assert np.array_equal(one.genes["toward_pos"], other.genes["toward_A"])
    assert np.array_equal(one.values.layers["toward_neg"], other.values.layers["toward_B"])


def test_ensemble_averages_in_the_order_of_classes():
    bags, y = make_bags(12)
    clf = quick("ABMILClassifier", max_epochs=1, n_models=2, pos_label=0).fit(bags, y)
    assert clf.classes_.tolist() == [0, 1]
    assert clf.pos_label_ == 0
    margin = clf.decision_function(bags)
    assert np.array_equal(margin > 0, clf.predict_proba(bags)[:, 1] > 0.5)


@pytest.mark.parametrize("names", [[0, 1], [1, 2], [-1, 1], [False, True], ["a", "b"], [0.0, 1.0]])
def test_labels_of_any_kind_can_be_the_positive_one(names):
    bags, y = make_bags(12)
    first, last = (
        quick("ABMILClassifier", max_epochs=1, pos_label=np.array(names)[k]) for k in (0, 1)
    )
    first.fit(bags, np.array(names)[1 - y])
    last.fit(bags, np.array(names)[y])
    assert (first.pos_label_, last.pos_label_) == tuple(names)
    assert np.array_equal(first.predict_proba(bags)[:, 0], last.predict_proba(bags)[:, 1])


@pytest.mark.parametrize(
    ("names", "pos_label", "message"),
    [
        (["neg", "pos"], "positive", "'positive' is no class of y. The classes are 'neg', 'pos'"),
        ([0, 1], "1", "'1' is no class of y. The classes are 0, 1"),
        (["a", "b", "c"], "c", "there are 3: 'a', 'b', 'c'"),
    ],
)
def test_unusable_pos_label_lists_the_classes(names, pos_label, message):
    bags, _ = make_bags(12)
    y = np.array(names)[np.arange(12) % len(names)]
    with pytest.raises(ValueError, match=message):
        ABMILClassifier(pos_label=pos_label).fit(bags, y)


def test_names_that_mean_the_first_class_warn_unless_pos_label_is_given():
    bags, y = make_bags(12)
    names = np.array(["HER2-", "HER2+"])[y]
    clf = quick("ABMILClassifier", max_epochs=1)
    with pytest.warns(UserWarning, match="pos_label='HER2\\+'") as caught:
        clf.fit(bags, names)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(clf).set_params(pos_label="HER2+").fit(bags, names)


def test_a_refit_forgets_the_positive_class():
    bags, y = make_bags(12)
    clf = quick("ABMILClassifier", max_epochs=1, pos_label="A").fit(bags, np.array(["B", "A"])[y])
    three = np.array(["a", "b", "c"])[np.arange(12) % 3]
    assert clf.set_params(pos_label=None).fit(bags, three).pos_label_ is None
    assert clf.predict_proba(bags).shape == (12, 3)
