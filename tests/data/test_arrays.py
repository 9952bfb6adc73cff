"""Steps between a bag's file and its reader: features are mapped, instances left out."""

import pickle

import numpy as np
import pytest

from sk_momkd import Bag, BagSequence, patient_bags, read_bags, simulate_cohort
from sk_momkd.data.graph import build_edges
from sk_momkd.exceptions import BagError

FEATURES = np.arange(10.0).reshape(5, 2)
COORDS = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])
EDGES = np.array([[0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 0, 2]])


def drop_second(bag):
    return np.arange(len(bag.features)) != 1


def nothing(bag):
    return np.zeros(len(bag.features), dtype=bool)


def is_planted(bag):
    return bag.features[:, 0] > 0


@pytest.fixture
def bag():
    return Bag(FEATURES, COORDS, edge_index=EDGES, bag_id="S7", patient_id="P7")


def test_filter_cuts_features_coords_and_relabels_edges(bag):
    kept = bag.filter(drop_second)
    np.testing.assert_array_equal(kept.features, FEATURES[[0, 2, 3, 4]])
    np.testing.assert_array_equal(kept.coords, COORDS[[0, 2, 3, 4]])
    assert kept.edge_index.tolist() == [[1, 2, 3, 3], [2, 3, 0, 1]]
    assert kept.edge_index.dtype == np.int64
    assert (kept.shape, kept.bag_id, kept.patient_id) == ((4, 2), "S7", "P7")


def test_filter_leaves_the_bag_and_what_is_absent_as_they_are(bag):
    bag.filter(drop_second).load()
    assert bag.n_instances == 5
    arrays = Bag(FEATURES).filter(drop_second).load()
    assert (arrays.coords, arrays.edge_index, arrays.slide_index) == (None, None, None)


def test_filter_of_all_edges_leaves_an_empty_graph(bag):
    kept = bag.filter(lambda b: np.isin(np.arange(5), [0, 2]))
    assert kept.edge_index.shape == (2, 0)
    assert build_edges(kept.load()).shape == (2, 0)


def test_filter_then_spatial_graph_joins_the_patches_that_are_left(bag):
    kept = bag.filter(drop_second).load()
    edges = build_edges(kept, graph="spatial", n_neighbors=1)
    alone = build_edges(kept._replace(edge_index=None), n_neighbors=1)
    np.testing.assert_array_equal(edges, alone)
    assert edges[0, edges[1] == 0].tolist() == [1]  # across the gap


def test_filter_and_map_apply_in_the_order_given(bag):
    filtered_first = bag.filter(lambda b: b.features[:, 0] > 5).map(lambda x: x - x.min())
    mapped_first = bag.map(lambda x: x - x.min()).filter(lambda b: b.features[:, 0] > 5)
    np.testing.assert_array_equal(filtered_first.features, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(mapped_first.features, [[6, 7], [8, 9]])


def test_filter_twice_relabels_twice(bag):
    kept = bag.filter(drop_second).filter(drop_second)
    np.testing.assert_array_equal(kept.coords[:, 0], [0, 3, 4])
    assert kept.edge_index.tolist() == [[1, 2], [2, 0]]


def test_filter_of_everything_raises_naming_the_bag(bag):
    with pytest.raises(BagError, match=r"^bag 'S7' is empty after its filter.*all 5.*Loosen"):
        bag.filter(nothing).load()


def test_filter_of_everything_without_id_names_the_position():
    bags = BagSequence([Bag(FEATURES), Bag(FEATURES)]).filter(nothing)
    with pytest.raises(BagError, match=r"^bag 1 is empty after"):
        bags[1:].load(0)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.ones(4, bool), r"5 instances, got bool of shape \(4,\)"),
        (np.ones(5, int), "got int64"),
        (np.array([0, 2]), "got int64"),
        (np.ones((5, 1), bool), r"shape \(5, 1\)"),
    ],
)
def test_filter_with_wrong_mask_raises_naming_the_bag(bag, mask, said):
    with pytest.raises(BagError, match=f"^bag 'S7': its filter must give .*{said}"):
        bag.filter(lambda b: mask).load()


def test_filter_that_fails_names_the_bag(bag):
    with pytest.raises(BagError, match=r"^bag 'S7' does not suit its filter: .*reshape"):
        bag.filter(lambda b: b.features.reshape(7)).load()


def test_map_to_fewer_instances_raises_and_names_filter(bag):
    with pytest.raises(BagError, match=r"^bag 'S7': its transformer made 3 .* of 5.*Bag\.filter"):
        bag.map(lambda x: x[:3]).load()


def test_filter_of_files_reads_nothing_and_pickles_as_paths(tmp_path):
    paths = simulate_cohort(tmp_path, n_patients=2, n_patches=50, random_state=0)
    bags = read_bags(paths.features)
    kept = bags.filter(is_planted)
    for path in paths.features.iterdir():
        path.rename(path.with_suffix(".away"))
    stored = pickle.dumps(kept)
    assert len(stored) < 2000
    for path in paths.features.iterdir():
        path.rename(path.with_suffix(".h5"))
    again = pickle.loads(stored)
    mask = bags[1].features[:, 0] > 0
    assert 0 < mask.sum() < len(mask)
    np.testing.assert_array_equal(again[1].features, bags[1].features[mask])
    np.testing.assert_array_equal(again[1].coords, bags[1].coords[mask])


def test_filter_of_a_patient_cuts_the_slide_index():
    slides = [
        Bag(FEATURES, COORDS, bag_id="S0", patient_id="A"),
        Bag(-1 - FEATURES, COORDS, bag_id="S1", patient_id="A"),
        Bag(FEATURES + 0.5, COORDS, bag_id="S2", patient_id="A"),
    ]
    patient = patient_bags(slides)[0].filter(is_planted)
    arrays = patient.load()
    np.testing.assert_array_equal(arrays.slide_index, [0] * 4 + [2] * 5)
    edges = build_edges(arrays, n_neighbors=2)
    assert (arrays.slide_index[edges[0]] == arrays.slide_index[edges[1]]).all()
    assert edges.max() == 8
    assert [slide.bag_id for slide in patient.slides] == ["S0", "S1", "S2"]


def test_filter_of_slides_then_patient_bag_equals_filter_of_the_patient():
    slides = BagSequence(
        Bag(FEATURES + i, COORDS, edge_index=EDGES, bag_id=f"S{i}", patient_id="A") for i in (0, 1)
    )
    before = patient_bags(slides.filter(is_planted))[0].load()
    after = patient_bags(slides)[0].filter(is_planted).load()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_filter_of_a_bootstrap_keeps_the_repeats():
    bags = BagSequence(Bag(FEATURES, bag_id=f"S{i}") for i in range(3))
    assert bags[[1, 1, 0]].filter(drop_second).ids.tolist() == ["S1", "S1", "S0"]


def test_repr_of_a_filtered_bag_says_that_it_will_change(bag):
    assert repr(bag.filter(drop_second)).endswith("graph, transformed when read)")
