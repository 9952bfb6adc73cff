"""Several slides per patient: one bag, a graph per slide, one label."""

import copy
import pickle

import numpy as np
import pytest
from conftest import quick_classifier

from sk_momkd import (
    Bag,
    BagSequence,
    InstanceStandardizer,
    load_cohort,
    patient_bags,
    patient_labels,
    simulate_cohort,
)
from sk_momkd.data.graph import build_edges
from sk_momkd.exceptions import BagError, CohortError


def slide(name, patient, n=4, width=3, **kwargs):
    random = np.random.default_rng(len(name) + n)
    coords = kwargs.pop("coords", np.stack([np.arange(n), np.zeros(n)], axis=1))
    return Bag(random.normal(size=(n, width)), coords, bag_id=name, patient_id=patient, **kwargs)


SLIDES = BagSequence([slide("S0", "A"), slide("S1", "B", 3), slide("S22", "A", 2)])


def test_patient_bag_stacks_its_slides_in_order():
    a, b = patient_bags(SLIDES)
    assert (a.patient_id, a.n_instances, b.n_instances) == ("A", 6, 3)
    arrays = a.load()
    np.testing.assert_array_equal(arrays.slide_index, [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(arrays.features[4:], SLIDES[2].features)


@pytest.mark.parametrize("graph", ["auto", "spatial", "features"])
@pytest.mark.parametrize("edge_flow", ["neighbors", "release", "symmetric"])
def test_graph_of_a_patient_never_joins_slides_that_share_coordinates(graph, edge_flow):
    arrays = patient_bags(SLIDES)[0].load()
    edges = build_edges(arrays, graph=graph, n_neighbors=2, edge_flow=edge_flow)
    assert (arrays.slide_index[edges[0]] == arrays.slide_index[edges[1]]).all()
    alone = [
        build_edges(SLIDES[i].load(), graph=graph, n_neighbors=2, edge_flow=edge_flow) + offset
        for i, offset in ((0, 0), (2, 4))
    ]
    np.testing.assert_array_equal(edges, np.concatenate(alone, axis=1))


def test_stored_graphs_are_shifted_side_by_side():
    one = slide("S0", "A", 2, edge_index=[[0], [1]])
    two = slide("S1", "A", 3, edge_index=[[2], [0]])
    arrays = patient_bags([one, two])[0].load()
    assert build_edges(arrays).tolist() == [[0, 4], [1, 2]]


def test_patient_of_one_slide_predicts_like_that_slide():
    random = np.random.default_rng(0)
    slides = BagSequence(
        Bag(
            random.normal(size=(5, 3)),
            random.normal(size=(5, 2)),
            bag_id=f"S{i}",
            patient_id=f"P{i}",
        )
        for i in range(12)
    )
    clf = quick_classifier(max_epochs=1, early_stopping=False).fit(slides, np.arange(12) % 2)
    np.testing.assert_array_equal(
        clf.predict_proba(patient_bags(slides)), clf.predict_proba(slides)
    )


def test_labels_of_patients_follow_their_first_slides_and_must_agree():
    assert patient_labels(SLIDES, ["x", "y", "x"]).tolist() == ["x", "y"]
    with pytest.raises(CohortError, match=r"1 patients.*different labels: 'A'"):
        patient_labels(SLIDES, ["x", "y", "z"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (slide("S1", "A", width=5), "5 features in bag 'S1', but bag 'S0'"),
        (
            Bag(np.ones((2, 3)), bag_id="S1", patient_id="A"),
            "'S0' has coordinates, but bag 'S1' of",
        ),
        (slide("S1", "A", edge_index=[[0], [1]]), "'S1' has a graph.*'S0' of the same patient"),
    ],
)
def test_slides_that_do_not_fit_together_are_named(second, message):
    with pytest.raises(BagError, match=message):
        patient_bags([slide("S0", "A"), second])[0].load()


def test_slide_without_patient_is_named():
    with pytest.raises(CohortError, match="'S9' has no patient id"):
        patient_bags([Bag(np.ones((1, 2)), bag_id="S9")])


def test_load_cohort_by_patient_gives_patients_with_omics(tmp_path):
    paths = simulate_cohort(tmp_path, n_patients=6, n_patches=12, random_state=0)
    table = paths.table.read_text().replace("SIM-005,", "SIM-004,")  # two slides of one patient
    paths.table.write_text(table)
    slides = load_cohort(*paths, label="case_id")
    bags, y, omics, _ = load_cohort(*paths, label="case_id", unit="patient")
    assert len(slides.bags) == 6
    assert list(bags.patient_ids) == list(y) == [f"SIM-00{i}" for i in range(5)]
    assert list(omics.obs_names) == list(bags.patient_ids)
    with pytest.raises(CohortError, match="'slide' or 'patient'"):
        load_cohort(*paths, label="case_id", unit="site")


def halved(bag):
    """A patient's bag with transforms that depend on all its slides, and on each patch."""
    bag = bag.map(lambda features: features - features.mean(axis=0))
    return bag.filter(lambda arrays: np.arange(len(arrays.features)) % 2 == 0)


def of_slide(arrays, number):
    own = arrays.slide_index == number
    return arrays.features[own], arrays.coords[own]


def test_slides_of_a_transformed_patient_are_transformed_in_it():
    chain = np.array([[0, 2], [2, 0]])
    slides = [slide("S0", "A", edge_index=chain), slide("S22", "A", 6, edge_index=chain)]
    bag = halved(patient_bags(slides)[0])
    whole = bag.load()
    for number, one in enumerate(bag.slides):
        features, coords = of_slide(whole, number)
        np.testing.assert_array_equal(one.features, features)
        np.testing.assert_array_equal(one.coords, coords)
        np.testing.assert_array_equal(one.edge_index, [[0, 1], [1, 0]])
        assert (one.bag_id, one.patient_id) == (slides[number].bag_id, "A")
        assert one.load().slide_index is None
        assert one.shape == features.shape
        assert one.slides == (one,)
        assert one.info == slides[number].info
        assert one.given_ids == slides[number].given_ids
    np.testing.assert_array_equal(bag.slides[1].pinned().features, bag.slides[1].features)
    assert bag.slides[0].map(np.abs).features.min() >= 0


def test_slide_of_which_transforms_leave_nothing_is_named():
    first = patient_bags(SLIDES)[0].filter(lambda arrays: arrays.slide_index == 0)
    assert first.slides[0].n_instances == 4
    with pytest.raises(BagError, match="bag 'S22' is empty after its filter"):
        first.slides[1].load()


def test_coordinates_and_copies_reach_the_slides():
    patient = patient_bags(SLIDES)[0]
    moved = Bag(patient.source, np.full((6, 2), 7), bag_id="A", patient_id="A")
    assert (moved.slides[1].coords == 7).all()
    for copied in (copy.copy(moved), copy.deepcopy(moved), pickle.loads(pickle.dumps(moved))):
        np.testing.assert_array_equal(copied.slides[0].coords, moved.slides[0].coords)
    scaler = InstanceStandardizer().fit([patient])
    one = pickle.loads(pickle.dumps(scaler.transform([patient])[0].slides[1]))
    features, _ = of_slide(scaler.transform([patient])[0].load(), 1)
    np.testing.assert_array_equal(one.features, features)
