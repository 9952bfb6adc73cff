import copy

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from conftest import make_bags
from quick import quick

from sk_momkd import BagSequence, patch_affinities, top_patches


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


def test_top_patch_of_a_component_that_equals_a_patch_is_that_patch(momkd, unseen):
    bag, patch = unseen.bags[3], 17
    (output,) = momkd._forward(BagSequence([bag]))
    changed = copy.deepcopy(momkd)
    with torch.no_grad():
        changed.module_.memory.rows[1, 2] = output.projection[patch]
    best = top_patches(changed, unseen.bags, n=1).set_index(["class", "component"])
    assert tuple(best.loc[(1, 2), ["bag_id", "patch"]]) == (bag.bag_id, patch)
    assert best.loc[(1, 2), "affinity"] == pytest.approx(1, abs=1e-5)


def test_top_patches_of_less_than_one_are_refused(momkd, unseen):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        top_patches(momkd, unseen.bags, n=0)


def test_memory_of_a_classifier_without_one_is_refused():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    with pytest.raises(TypeError, match=r"ABMILClassifier has no memory"):
        top_patches(clf, bags)
