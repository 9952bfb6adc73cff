"""The order in which a slide's patches are stored does not change its prediction."""

import numpy as np
import pytest
from conftest import make_bags, quick_classifier
from quick import CLASSIFIERS, quick, takes_omics
from sklearn.preprocessing import StandardScaler

from sk_momkd import Bag, InstanceTransformer, read_bags, write_trident

# TransMIL encodes positions by the order, DTFD-MIL cuts a slide into chunks of it.
ORDERED = {"TransMILClassifier", "DTFDMILClassifier"}


def tissue(seed, *, n_at_a_place=1, n_features=6):
    """A slide on a lattice with gaps, where most patches have equally near neighbours."""
    random = np.random.default_rng(seed)
    places = np.argwhere(random.random((9, 9)) < 0.6).repeat(n_at_a_place, axis=0)
    return Bag(random.normal(size=(len(places), n_features)) * 2, places * 256)


def permuted(bag, seed=0):
    arrays = bag.load()
    order = np.random.default_rng(seed).permutation(len(arrays.features))
    return Bag(arrays.features[order], None if arrays.coords is None else arrays.coords[order])


def moved(clf, bags):
    """The largest change of a probability when the patches of each slide are permuted."""
    shuffled = [permuted(bag, seed) for seed, bag in enumerate(bags)]
    return np.abs(clf.predict_proba(shuffled) - clf.predict_proba(bags)).max()


@pytest.fixture(scope="module")
def fitted():
    """A classifier of each kind of graph, trained for two epochs on ordinary bags."""
    bags, y = make_bags()
    return {
        (graph, flow): quick_classifier(
            graph=graph, network__edge_flow=flow, max_epochs=2, early_stopping=False
        ).fit(bags, y)
        for graph in ("spatial", "features")
        for flow in ("neighbors", "symmetric")
    }


@pytest.mark.parametrize("n_at_a_place", [1, 3])
@pytest.mark.parametrize("flow", ["neighbors", "symmetric"])
@pytest.mark.parametrize("graph", ["spatial", "features"])
def test_permuted_patches_of_a_lattice_keep_the_probability(fitted, graph, flow, n_at_a_place):
    bags = [tissue(seed, n_at_a_place=n_at_a_place) for seed in range(4)]
    assert moved(fitted[graph, flow], bags) < 1e-6


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - ORDERED))
def test_permuted_patches_keep_the_probability_of_every_method_without_an_order(name):
    bags, y = make_bags()
    clf = quick(name, max_epochs=1, early_stopping=False)
    clf.fit(bags, y, **({"omics": np.eye(len(y))} if takes_omics(name) else {}))
    assert moved(clf, [tissue(seed) for seed in range(3)]) < 1e-6


def test_large_slide_with_patches_at_one_place_has_the_same_graph_in_blocks(
    fitted, tmp_path, monkeypatch
):
    bag = tissue(0, n_at_a_place=3)
    write_trident(tmp_path / "a.h5", bag, patch_size_level0=256)
    bags = read_bags(tmp_path)
    whole = fitted["spatial", "neighbors"].predict_proba(bags)
    monkeypatch.setattr("sk_momkd.estimators.prediction._BLOCK_SIZE", 16)
    blocks = fitted["spatial", "neighbors"].predict_proba(bags)
    np.testing.assert_allclose(blocks, whole, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("graph", ["spatial", "features"])
def test_permuted_patches_of_real_slides_keep_the_probability(data_folder, graph):
    files = sorted((data_folder / "tcga_blca" / "features").glob("*.h5"))[:50]
    bags = InstanceTransformer(StandardScaler()).fit_transform(read_bags(files))
    few = [bag for bag in bags if len(bag.load().features) < 700][:12]
    clf = quick_classifier(graph=graph, max_epochs=5, early_stopping=False)
    clf.fit(few, np.arange(len(few)) % 2)
    assert len(bags) == 50
    assert moved(clf, bags) < 1e-6
    if graph == "spatial":  # the authors' rule among equally near patches goes by their order
        assert moved(clf.set_params(network__edge_flow="release"), bags) > 1e-6
