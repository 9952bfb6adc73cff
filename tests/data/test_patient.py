"""Several slides per patient: one bag, a graph per slide, one label."""

import numpy as np
import pytest
from conftest import quick_classifier

from sk_momkd import Bag, BagSequence, load_cohort, patient_bags, patient_labels, simulate_cohort
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
