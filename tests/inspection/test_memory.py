import copy

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics, quick_classifier

from sk_momkd import (
    ComponentUsage,
    choose_components,
    memory_prototypes,
    memory_usage,
    patch_affinities,
    patch_attention,
)

N = 4  # components per class
VARIANTS = ("slide", "patch", "attention", "own_class", "other_classes")


def test_usage_of_each_variant_sums_to_one_per_class(momkd, unseen):
    usage = memory_usage(momkd, unseen.bags, unseen.y)
    sums = usage.components.groupby("class")[list(VARIANTS)].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-6)


def test_usage_is_what_affinities_and_attention_say(momkd, unseen):
    bags, y = unseen.bags[:6], np.asarray(unseen.y)[:6]
    affinities, attention = patch_affinities(momkd, bags), patch_attention(momkd, bags)
    nearest = affinities.X.reshape(-1, 2, N).argmax(axis=2)  # (n, K)
    bag = attention["bag_id"].to_numpy()
    usage = memory_usage(momkd, bags, y).components
    for k in range(2):
        one_hot = np.eye(N)[nearest[:, k]]
        by_slide = np.stack([one_hot[bag == b].mean(axis=0) for b in bags.ids])
        weighted = one_hot * attention["attention"].to_numpy()[:, None]
        by_attention = np.stack([weighted[bag == b].sum(axis=0) for b in bags.ids])
        own = usage[usage["class"] == k]
        np.testing.assert_allclose(own["slide"], by_slide.mean(axis=0))
        np.testing.assert_allclose(own["patch"], one_hot.mean(axis=0))
        np.testing.assert_allclose(own["attention"], by_attention.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(own["own_class"], by_slide[y == k].mean(axis=0))
        np.testing.assert_allclose(own["other_classes"], by_slide[y != k].mean(axis=0))


def test_usage_of_a_cohort_is_the_mean_of_its_parts(momkd, unseen):
    parts = [memory_usage(momkd, unseen.bags[s]) for s in (slice(0, 5), slice(5, 20))]
    whole = memory_usage(momkd, unseen.bags).components
    merged = (5 * parts[0].components["slide"] + 15 * parts[1].components["slide"]) / 20
    np.testing.assert_allclose(whole["slide"], merged)
    sizes = [p.bags["n_patches"].sum() for p in parts]
    merged = np.average([p.components["patch"] for p in parts], axis=0, weights=sizes)
    np.testing.assert_allclose(whole["patch"], merged)


def test_summary_of_one_used_component_is_the_smallest_possible(momkd, unseen):
    alike = copy.deepcopy(momkd)
    with torch.no_grad():  # of equal rows the first is the best match
        alike.module_.memory.rows.copy_(alike.module_.memory.rows[:, :1].expand(-1, N, -1))
    summary = memory_usage(alike, unseen.bags, unseen.y).summary
    assert list(summary.index) == list(VARIANTS)
    np.testing.assert_allclose(summary[["active_ratio", "ever_used"]], 1 / N)
    np.testing.assert_allclose(summary[["perplexity_0", "perplexity_1"]], 1)
    np.testing.assert_allclose(summary[["normalised_0", "normalised_1"]], 1 / N)
    np.testing.assert_allclose(summary["effective_components"], 2)


def test_effective_components_are_the_perplexity_of_both_memories_joined(momkd, unseen):
    usage = memory_usage(momkd, unseen.bags)
    u = usage.components["slide"].to_numpy() / 2
    joint = np.exp(-(u[u > 0] * np.log(u[u > 0])).sum())
    assert usage.summary.loc["slide", "effective_components"] == pytest.approx(joint)
    ratio = (2 * u > 1 / (10 * N)).mean()
    assert usage.summary.loc["slide", "active_ratio"] == ratio


def test_usage_of_the_validation_part_is_what_history_says():
    bags, y = make_bags()
    clf = quick_classifier(max_epochs=1).fit(bags, y, omics=make_omics(y))
    held_out = np.isin(bags.ids, clf.validation_["bag_id"])
    summary = memory_usage(clf, bags[held_out]).summary.loc["slide"]
    last = clf.history_.iloc[-1]
    for name in ("active_ratio", "ever_used", "perplexity_0", "perplexity_1"):
        assert summary[name] == pytest.approx(last[f"valid_memory_{name}"])
    assert summary["effective_components"] == pytest.approx(
        last["valid_memory_effective_components"]
    )


def test_own_class_usage_without_labels_or_without_a_class_is_unknown(momkd, unseen):
    usage = memory_usage(momkd, unseen.bags)
    assert usage.components["own_class"].isna().all()
    assert usage.summary.loc["own_class"].isna().all()
    positive = np.asarray(unseen.y) == 1
    usage = memory_usage(momkd, unseen.bags[positive], np.asarray(unseen.y)[positive])
    assert usage.components.groupby("class")["own_class"].count().to_list() == [0, N]


def test_bags_of_usage_have_entropy_and_the_largest_cosine_of_each_class(momkd, unseen):
    usage = memory_usage(momkd, unseen.bags)
    attention = patch_attention(momkd, unseen.bags)
    grouped = attention.groupby("bag_id", sort=False)["attention"]
    entropy = grouped.apply(lambda a: -(a * np.log(a)).sum() / np.log(len(a)))
    np.testing.assert_allclose(usage.bags["attention_entropy"], entropy, atol=1e-5)
    affinity = momkd.transform(unseen.bags).reshape(-1, 2, N).max(axis=2)
    np.testing.assert_allclose(usage.bags[["cosine_0", "cosine_1"]], affinity, atol=1e-5)


def test_usage_says_itself_in_words(momkd, unseen):
    text = str(memory_usage(momkd, unseen.bags))
    assert text.startswith("Memory usage of 20 bags, 4 components per class")
    assert "effective_components" in text


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([0, 1], "y has 2 labels, but there are 20 bags"),
        ([0, 7] * 10, "y holds 7, but the classifier"),
    ],
)
def test_wrong_labels_are_refused(momkd, unseen, y, said):
    with pytest.raises(ValueError, match=said):
        memory_usage(momkd, unseen.bags, y)


def test_prototypes_are_the_directions_with_their_cosines(momkd):
    found = memory_prototypes(momkd)
    rows = momkd.module_.memory.rows.detach().double().flatten(0, 1).numpy()
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(found.obs["norm"], norms, rtol=1e-6)
    np.testing.assert_allclose(found.X, rows / norms[:, None], atol=1e-6)
    cosine = found.X @ found.X.T
    np.testing.assert_allclose(found.obsp["cosine"], cosine)
    within = cosine[:N, :N] - 2 * np.eye(N)
    np.testing.assert_allclose(found.obs["cosine_within"][:N], within.max(axis=1))
    np.testing.assert_allclose(found.obs["cosine_across"][:N], cosine[:N, N:].max(axis=1))
    off = cosine[:N, :N][~np.eye(N, dtype=bool)]
    assert found.uns["cosine"]["within_0"]["mean"] == pytest.approx(np.abs(off).mean())
    assert found.uns["cosine"]["across"]["max"] == pytest.approx(np.abs(cosine[:N, N:]).max())


def test_prototypes_of_one_component_have_no_neighbour_within():
    bags, y = make_bags()
    clf = quick_classifier(n_components=1, max_epochs=1, early_stopping=False).fit(bags, y)
    found = memory_prototypes(clf)
    assert found.obs["cosine_within"].isna().all()
    assert np.isnan(found.uns["cosine"]["within_0"]["mean"])


def test_three_classes_have_a_memory_and_a_column_each():
    bags, _ = make_bags()
    y = np.arange(24) % 3
    clf = quick_classifier(max_epochs=1, early_stopping=False).fit(bags, y)
    usage = memory_usage(clf, bags, y)
    assert usage.components["class"].to_list() == [0] * N + [1] * N + [2] * N
    np.testing.assert_allclose(usage.components.groupby("class")["attention"].sum(), 1, atol=1e-5)
    assert {"perplexity_2", "normalised_2"} <= set(usage.summary)
    assert 3 <= usage.summary.loc["slide", "effective_components"] <= 3 * N


def test_chosen_components_are_those_that_their_own_class_uses_more_than_others():
    components = pd.DataFrame(
        {
            "class": ["wt", "wt", "mut", "mut"],
            "component": [0, 1, 0, 1],
            "own_class": [0.9, 0.1, 0.5, 0.5],
            "other_classes": [0.9, 0.0, 0.2, 0.8],
        }
    )
    usage = ComponentUsage(components, pd.DataFrame(), pd.DataFrame())
    chosen = choose_components(usage)
    assert chosen[["class", "component"]].to_numpy().tolist() == [["wt", 1], ["mut", 0]]
    np.testing.assert_allclose(chosen["value"], [0.1, 0.3])
    assert choose_components(usage, n=9, by="own_class")["component"].to_list() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="n must be at least 1"):
        choose_components(usage, n=0)
    with pytest.raises(ValueError, match="by must be one of"):
        choose_components(usage, by="cosine")


def test_components_cannot_be_chosen_by_what_was_not_measured(momkd, unseen):
    usage = memory_usage(momkd, unseen.bags)
    with pytest.raises(ValueError, match="Pass y to memory_usage"):
        choose_components(usage)
    assert len(choose_components(usage, by="slide")) == 2
