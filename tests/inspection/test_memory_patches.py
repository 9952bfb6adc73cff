import numpy as np
import pytest
from anndata import read_h5ad
from conftest import make_bags
from quick import quick

from sk_momkd import patch_affinities, top_patches


def test_affinities_are_cosines_with_the_directions_of_the_memory(momkd, unseen):
    found = patch_affinities(momkd, unseen.bags[:2])
    outputs = momkd._forward(unseen.bags[:2])
    rows = momkd.module_.memory.directions().detach().flatten(0, 1).numpy()
    expected = np.concatenate([output.projection.numpy() @ rows.T for output in outputs])
    np.testing.assert_allclose(found.X, expected, atol=1e-5)
    assert found.var_names.to_list() == momkd.get_feature_names_out().tolist()
    assert found.var["component"].to_list() == [0, 1, 2, 3] * 2
    np.testing.assert_array_equal(
        found.obsm["spatial"], np.concatenate([bag.coords for bag in unseen.bags[:2]])
    )


def test_affinities_survive_a_file(momkd, unseen, tmp_path):
    found = patch_affinities(momkd, unseen.bags[:2])
    found.write_h5ad(tmp_path / "affinities.h5ad")
    again = read_h5ad(tmp_path / "affinities.h5ad")
    np.testing.assert_array_equal(again.X, found.X)
    assert again.obs["bag_id"].to_list() == found.obs["bag_id"].to_list()


def test_top_patches_are_the_largest_affinities_of_each_component(momkd, unseen):
    affinities = patch_affinities(momkd, unseen.bags)
    best = top_patches(momkd, unseen.bags, n=3)
    assert best["rank"].to_list() == [1, 2, 3] * 8
    for j, (_, own) in enumerate(best.groupby(["class", "component"])):
        column = affinities.X[:, j]
        order = np.argsort(-column, kind="stable")[:3]
        np.testing.assert_allclose(own["affinity"], column[order])
        expected = affinities.obs.iloc[order]
        assert own["bag_id"].to_list() == expected["bag_id"].to_list()
        assert own["patch"].to_list() == expected["patch"].to_list()


def test_top_patches_with_one_per_bag_are_of_different_bags(momkd, unseen):
    best = top_patches(momkd, unseen.bags, n=5, one_per_bag=True)
    assert (best.groupby(["class", "component"])["bag_id"].nunique() == 5).all()
    first = top_patches(momkd, unseen.bags, n=1)
    kept = best[best["rank"] == 1].reset_index(drop=True)
    assert kept["affinity"].to_list() == first["affinity"].to_list()


def test_top_patches_of_fewer_patches_than_asked_are_all_of_them(momkd, unseen):
    bag = unseen.bags[0]
    best = top_patches(momkd, [bag], n=10_000)
    assert len(best) == 8 * bag.n_instances


def test_top_patches_of_a_component_of_the_positive_class_lie_in_the_planted_region(momkd, unseen):
    best = top_patches(momkd, unseen.bags, n=5)
    best["planted"] = [
        unseen.planted[bag][patch] for bag, patch in zip(best["bag_id"], best["patch"], strict=True)
    ]
    share = best.groupby(["class", "component"])["planted"].mean()
    assert share[1].max() >= 0.6  # chance is the region's area, 0.15
    assert share[0].max() <= 0.2


def test_top_patches_of_less_than_one_are_refused(momkd, unseen):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        top_patches(momkd, unseen.bags, n=0)


def test_memory_of_a_classifier_without_one_is_refused():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    with pytest.raises(TypeError, match=r"ABMILClassifier has no memory"):
        top_patches(clf, bags)
