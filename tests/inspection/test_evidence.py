"""Evidence sums to logits for every method, and points to planted patches under both codings."""

import numpy as np
import pytest
from conftest import make_bags, make_omics
from inspection.conftest import small_momkd
from quick import CLASSIFIERS, quick, takes_omics
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    Bag,
    BagSequence,
    InstanceTransformer,
    patch_attention,
    patch_evidence,
    read_bags,
    slide_scores,
    to_geojson,
    write_trident,
)

UNTRAINED = {"max_epochs": 1, "early_stopping": False}
OPTIONS = [
    *((name, {}) for name in CLASSIFIERS),
    ("MoMKDClassifier", {"network__head": "linear"}),
    ("MoMKDClassifier", {"n_models": 2}),
    ("DSMILClassifier", {"average_streams": True}),
    ("DSMILClassifier", {"average_streams": True, "value_layer": True}),
    ("DTFDMILClassifier", {"distillation": "MaxMinS"}),
    ("WiKGClassifier", {"readout": "mean"}),
]
OF_FEATURES = {"GHANetClassifier", "TransMILClassifier"}
EXACT = {"ABMILClassifier", "MKDClassifier", "TDCClassifier"}


def fitted(name, n_classes=2, **options):
    bags, y = make_bags()
    labels = y if n_classes == 2 else np.arange(len(y)) % n_classes
    omics = {"omics": make_omics(y)} if takes_omics(name) else {}
    return quick(name, **UNTRAINED | options).fit(bags, labels, **omics), bags


def totals(table):
    columns = [c for c in table if c.startswith("evidence_")]
    return table.groupby("bag_id", sort=False)[columns].sum().to_numpy()


def change_of_logits(clf, bags):
    """Logits of bags minus those of bags of reference patches, each minus the others' mean."""
    reference = [np.repeat(clf.mean_patch_[None], bag.n_instances, axis=0) for bag in bags]
    change = clf.decision_function(bags) - clf.decision_function(reference)
    if change.ndim == 1:
        return change[:, None] * (1 if clf.pos_label_ == clf.classes_[1] else -1)
    n_classes = change.shape[1]
    return (n_classes * change - change.sum(axis=1, keepdims=True)) / (n_classes - 1)


@pytest.mark.filterwarnings("ignore:.*Use more than n_steps=32")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_evidence_of_a_slide_sums_to_the_change_of_its_logits(name, options, n_classes):
    clf, bags = fitted(name, n_classes, **options)
    bags = bags[:1]
    table = patch_evidence(clf, bags, n_steps=32 if name in OF_FEATURES else None)
    expected = change_of_logits(clf, bags)
    exact = name in EXACT or options.get("network__head") == "linear"
    error = 1e-5 if exact else 3e-2 if name in OF_FEATURES else 5e-3
    np.testing.assert_allclose(totals(table), expected, atol=error * max(1, abs(expected).max()))
    classes = clf.classes_[1:] if n_classes == 2 else clf.classes_
    assert list(table)[5:] == [f"evidence_{c}" for c in classes]


def test_evidence_of_more_steps_sums_more_closely():
    clf, bags = fitted("MoMKDClassifier")
    expected = change_of_logits(clf, bags[:4])
    errors = [
        np.abs(totals(patch_evidence(clf, bags[:4], n_steps=n)) - expected).max()
        for n in (64, 16_384)
    ]
    assert errors[1] < 1e-3
    assert errors[1] < errors[0]


def test_evidence_with_a_linear_head_is_weight_times_embedding_by_hand():
    clf, bags = fitted("ABMILClassifier")
    bag, weights = bags[0], {k: v.numpy() for k, v in clf.module_.state_dict().items()}
    weight, bias = weights["embedding.weight"], weights["embedding.bias"]
    head = weights["head.weight"]
    patches, reference = (
        np.maximum(x @ weight.T + bias, 0) for x in (bag.features, clf.mean_patch_)
    )
    attention = patch_attention(clf, [bag])["attention"]
    expected = attention * ((patches - reference) @ (head[1] - head[0]))
    np.testing.assert_allclose(patch_evidence(clf, [bag])["evidence_1"], expected, atol=1e-6)


def test_evidence_has_the_rows_of_the_attention_and_does_not_depend_on_other_bags(momkd, unseen):
    table, attention = (f(momkd, unseen.bags[:3]) for f in (patch_evidence, patch_attention))
    keys = ["bag_id", "patient_id", "patch", "x", "y"]
    assert table[keys].equals(attention[keys])
    alone = patch_evidence(momkd, unseen.bags[1:2])
    own = table[table["bag_id"] == unseen.bags[1].bag_id]
    np.testing.assert_array_equal(alone["evidence_1"], own["evidence_1"])


def test_evidence_for_the_positive_class_changes_sign_with_it():
    bags, y = make_bags()
    labels = np.array(["high", "low"])[y]
    high, low = (
        quick("ABMILClassifier", **UNTRAINED, pos_label=positive).fit(bags, given)
        for positive, given in (("high", labels[::-1]), ("low", labels))
    )
    # y alternates, so that both are trained on the same numbers: 1 for the positive class.
    tables = [patch_evidence(clf, bags[:2]) for clf in (high, low)]
    assert [list(t)[5:] for t in tables] == [["evidence_high"], ["evidence_low"]]
    np.testing.assert_allclose(totals(tables[0]), change_of_logits(high, bags[:2]), atol=1e-5)
    np.testing.assert_allclose(totals(tables[1]), change_of_logits(low, bags[:2]), atol=1e-5)


def auc_of_planted(table, column, cohort, sign=1):
    """AUC for the planted region of each positive slide, mean over the slides."""
    positive = set(np.array(cohort.bags.ids)[np.asarray(cohort.y) == 1])
    return np.mean(
        [
            roc_auc_score(cohort.planted[bag], sign * own[column])
            for bag, own in table.groupby("bag_id", sort=False)
            if bag in positive
        ]
    )


@pytest.mark.long
@pytest.mark.parametrize("positive", [1, 0])
def test_mean_evidence_of_two_fits_points_to_the_class_of_the_planted_region(
    training, unseen, positive
):
    sign = 1 if positive == 1 else -1
    column, found = f"evidence_{positive}", []
    for seed in range(2):
        clf = small_momkd(random_state=seed, pos_label=positive)
        clf.fit(training.bags, training.y, omics=training.omics)
        table = patch_evidence(clf, unseen.bags)
        inside = np.concatenate([unseen.planted[b] for b in dict.fromkeys(table["bag_id"])])
        for_planted = sign * table[column].to_numpy()
        share = np.clip(for_planted, 0, None)
        found.append(
            [
                auc_of_planted(table, column, unseen, sign),
                (for_planted[inside] > 0).mean(),
                share[inside].sum() / share.sum() / inside.mean(),
            ]
        )
    print(positive, np.round(found, 3))
    auc, supporting, ratio = np.mean(found, axis=0)
    assert auc > 0.75
    assert supporting > 0.75
    assert ratio > 1.75


def test_evidence_of_a_pipeline_is_that_of_the_transformed_bags(momkd, unseen):
    scale = InstanceTransformer(StandardScaler()).fit(unseen.bags[:4])
    model, bags, others = make_pipeline(scale, momkd), unseen.bags[:2], unseen.bags[4:6]
    through = patch_evidence(model, bags, reference=others)
    direct = patch_evidence(momkd, scale.transform(bags), reference=scale.transform(others))
    np.testing.assert_array_equal(through["evidence_1"], direct["evidence_1"])
    means = np.mean([bag.features.mean(axis=0) for bag in scale.transform(others)], axis=0)
    by_hand = patch_evidence(momkd, scale.transform(bags), reference=[means[None]])
    np.testing.assert_allclose(through["evidence_1"], by_hand["evidence_1"], atol=1e-5)


def test_reference_of_a_fit_is_the_mean_of_the_training_slides():
    clf, bags = fitted("ABMILClassifier")
    means = np.mean([bag.features.mean(axis=0) for bag in bags], axis=0)
    np.testing.assert_allclose(clf.mean_patch_, means, atol=1e-6)
    default = patch_evidence(clf, bags[:2])
    given = patch_evidence(clf, bags[:2], reference=bags)
    np.testing.assert_allclose(default["evidence_1"], given["evidence_1"], atol=1e-5)


def test_evidence_of_a_large_slide_in_a_file_is_read_in_blocks(momkd, tmp_path):
    random, n = np.random.default_rng(0), 9000
    coords = np.stack(np.divmod(np.arange(n), 100), axis=1) * 512
    bag = Bag(random.normal(size=(n, 32)), coords, bag_id="large")
    write_trident(tmp_path / "large.h5", bag, patch_size_level0=512)
    lazy, memory = (patch_evidence(momkd, b)["evidence_1"] for b in (read_bags(tmp_path), [bag]))
    np.testing.assert_allclose(lazy, memory, atol=1e-3 * memory.abs().max())


def test_evidence_is_exported_as_attention_is(momkd, unseen, tmp_path):
    bag = unseen.bags[0]
    table = patch_evidence(momkd, [bag])
    slide = slide_scores(momkd, bag, evidence=True)
    np.testing.assert_array_equal(slide.obs["evidence_1"], table["evidence_1"])
    text = to_geojson(table, tmp_path / "S.geojson", bag=bag).read_text()
    assert text.count('"measurements": {"evidence_1": ') == bag.n_instances


def test_evidence_without_a_known_reference_asks_for_one(momkd, unseen):
    clf = small_momkd()
    vars(clf).update({k: v for k, v in vars(momkd).items() if k != "mean_patch_"})
    with pytest.raises(ValueError, match=r"does not know the mean patch.*Pass reference="):
        patch_evidence(clf, unseen.bags[:1])
    given = patch_evidence(clf, unseen.bags[:1], reference=[momkd.mean_patch_[None]])
    own = patch_evidence(momkd, unseen.bags[:1])
    np.testing.assert_allclose(given["evidence_1"], own["evidence_1"], atol=1e-6)


def test_evidence_of_another_width_or_without_steps_says_so(momkd, unseen):
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        patch_evidence(momkd, unseen.bags[:1], n_steps=0)
    with pytest.raises(ValueError, match="5 features"):
        patch_evidence(momkd, unseen.bags[:1], reference=[np.ones((2, 5))])


def test_evidence_with_too_few_steps_warns_and_names_the_bag(momkd, unseen):
    with pytest.warns(UserWarning, match=rf"'{unseen.bags[0].bag_id}': its evidence sums to"):
        patch_evidence(momkd, BagSequence([unseen.bags[0]]), n_steps=1)
