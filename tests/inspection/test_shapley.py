import copy
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from conftest import make_bags, quick_classifier

from sk_momkd import explain_prediction
from sk_momkd.inspection.inspected_bags import inspected_bags
from sk_momkd.inspection.shapley import _coalition_value, _recorded_embeddings, shapley_values


def exact_shapley(value, n):
    """From all coalitions, as Shapley wrote it."""
    total = np.zeros(n)
    for player in range(n):
        others = [i for i in range(n) if i != player]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for coalition in combinations(others, size):
                rows = np.zeros((2, n), dtype=bool)
                rows[:, list(coalition)] = True
                rows[1, player] = True
                total[player] += weight * np.diff(value(rows))[0]
    return total


def glove_game(coalitions):
    """A pair is worth one: player 0 has a left glove, players 1 and 2 a right one."""
    return (coalitions[:, 0] & (coalitions[:, 1] | coalitions[:, 2])).astype(float)


def test_shapley_values_of_the_glove_game_are_the_known_ones():
    np.testing.assert_allclose(exact_shapley(glove_game, 3), [2 / 3, 1 / 6, 1 / 6])
    found = shapley_values(glove_game, 3, n_permutations=4000, random=np.random.RandomState(0))
    np.testing.assert_allclose(found, [2 / 3, 1 / 6, 1 / 6], atol=0.02)
    assert found.sum() == pytest.approx(1)


def test_shapley_values_of_an_additive_game_are_exact_after_one_order():
    worth = np.array([0.5, -1.0, 2.0])
    found = shapley_values(
        lambda z: z @ worth, 3, n_permutations=1, random=np.random.RandomState(0)
    )
    np.testing.assert_allclose(found, worth)


def test_attributions_sum_to_the_probability_over_uniform_attention(momkd, unseen):
    found = explain_prediction(momkd, unseen.bags, random_state=0)
    proba = momkd.predict_proba(unseen.bags)[:, 1]
    np.testing.assert_allclose(found.bags["probability"], proba, atol=1e-6)
    sums = found.components.groupby("bag_id", sort=False)["attribution"].sum().to_numpy()
    np.testing.assert_allclose(found.bags["uniform"] + sums, proba, atol=1e-5)
    assert found.fidelity_error < 1e-5
    assert found.components["attribution"].abs().max() > 1e-3


@pytest.mark.parametrize("n_classes", [2, 3])
def test_attributions_sum_to_the_probability_with_a_regression_on_pooled_slides(n_classes):
    bags, _ = make_bags()
    clf = quick_classifier(max_epochs=3, early_stopping=False, pooled_share=0.75)
    clf.fit(bags, np.arange(len(bags)) % n_classes)
    found = explain_prediction(clf, bags[:4], target=1, random_state=0)
    proba = clf.predict_proba(bags[:4])[:, 1]
    np.testing.assert_allclose(found.bags["probability"], proba, atol=1e-6)
    sums = found.components.groupby("bag_id", sort=False)["attribution"].sum()
    np.testing.assert_allclose(found.bags["uniform"] + sums.to_numpy(), proba, atol=1e-5)
    assert found.fidelity_error < 1e-5


def test_uniform_is_the_head_on_the_mean_patch(momkd, unseen):
    bag = unseen.bags[0]
    found = explain_prediction(momkd, [bag], n_permutations=1, random_state=0)
    kept = []
    handle = momkd.module_.encoder.register_forward_hook(
        lambda module, inputs, output: kept.append(output.clone())
    )
    momkd.predict_proba([bag])
    handle.remove()
    with torch.no_grad():
        logits = momkd.module_.head(kept[0].mean(dim=0, keepdim=True))
    proba = logits.double().softmax(dim=1)[0, 1]
    assert found.bags["uniform"][0] == pytest.approx(float(proba), abs=1e-5)


def test_attributions_agree_with_the_sum_over_all_coalitions():
    bags, y = make_bags()
    clf = quick_classifier(n_components=2, max_epochs=3, early_stopping=False).fit(bags, y)
    with _recorded_embeddings(clf.module_) as embeddings:
        (inspected,) = inspected_bags(clf, bags[:1])
        exact = exact_shapley(_coalition_value(clf, inspected, embeddings[0], 1), 4)
    found = explain_prediction(clf, bags[:1], n_permutations=300, random_state=0)
    np.testing.assert_allclose(found.components["attribution"], exact, atol=0.01)


def test_memory_that_tells_no_patches_apart_adds_nothing_in_sum(momkd, unseen):
    alike = copy.deepcopy(momkd)
    with torch.no_grad():
        alike.module_.memory.rows.copy_(alike.module_.memory.rows[:1, :1].expand(2, 4, -1))
    found = explain_prediction(alike, unseen.bags[:3], random_state=0)
    # All scores are 0, and attention is uniform, once every component takes part.
    sums = found.components.groupby("bag_id")["attribution"].sum()
    np.testing.assert_allclose(sums, 0, atol=1e-5)


def test_affinities_are_those_of_the_slide(momkd, unseen):
    found = explain_prediction(momkd, unseen.bags[:2], n_permutations=1, random_state=0)
    affinity = found.components["affinity"].to_numpy().reshape(2, 8)
    np.testing.assert_allclose(affinity, momkd.transform(unseen.bags[:2]), atol=1e-6)


def test_target_is_the_asked_class_and_two_classes_mirror_each_other(momkd, unseen):
    first, second = (
        explain_prediction(momkd, unseen.bags[:2], target=c, random_state=0) for c in (0, 1)
    )
    assert set(first.bags["target"]) == {0}
    np.testing.assert_allclose(
        first.components["attribution"], -second.components["attribution"], atol=1e-6
    )


def test_of_three_classes_the_predicted_one_is_explained():
    bags, _ = make_bags()
    clf = quick_classifier(max_epochs=1, early_stopping=False).fit(bags, np.arange(24) % 3)
    found = explain_prediction(clf, bags[:4], n_permutations=1, random_state=0)
    assert found.bags["target"].to_list() == clf.predict(bags[:4]).tolist()
    np.testing.assert_allclose(
        found.bags["probability"], clf.predict_proba(bags[:4]).max(axis=1), atol=1e-6
    )
    assert found.fidelity_error < 1e-5


def test_same_seed_gives_the_same_attributions(momkd, unseen):
    first, second = (
        explain_prediction(momkd, unseen.bags[:2], random_state=3).components for _ in range(2)
    )
    np.testing.assert_array_equal(first["attribution"], second["attribution"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": "x"}, "target must be one of the classes \\[0, 1\\], got 'x'"),
        ({"n_permutations": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(momkd, unseen, wrong, said):
    with pytest.raises(ValueError, match=said):
        explain_prediction(momkd, unseen.bags, **wrong)


def test_explanation_says_how_exact_it_is(momkd, unseen):
    text = str(explain_prediction(momkd, unseen.bags[:2], n_permutations=1, random_state=0))
    assert text.startswith("Attributions of 2 predictions to memory components; largest error")
