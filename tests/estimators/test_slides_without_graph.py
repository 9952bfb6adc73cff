"""Slides without coordinates beside others that have them: a warning in fit and in prediction."""

import warnings

import numpy as np
import pytest

from sk_momkd import Bag, BagSequence
from sk_momkd.bag_warnings import BagWarnings
from sk_momkd.data.graph import GRAPHS
from sk_momkd.estimators.slides_without_graph import UnlikeGraphs, are_connected
from sk_momkd.exceptions import CohortWarning
from sk_momkd.training.batches import BagDataset, GraphSpec

COORDS = np.array([[0, 0], [1, 0], [0, 1]])


def dataset(has_coords, n_patches=3, graph="auto"):
    bags = BagSequence(
        Bag(np.eye(n_patches, 3) + 1, COORDS[:n_patches] if has else None, bag_id=f"S{i}")
        for i, has in enumerate(has_coords)
    )
    return BagDataset(bags, np.zeros(len(bags), int), GraphSpec(graph), 3)


def connected(data):
    """What training slides are, without any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return are_connected(data)


def test_cohort_of_slides_with_and_without_coordinates_warns():
    with pytest.warns(CohortWarning, match="2 of 3 training slides .*: bag 'S1', bag 'S2'"):
        assert are_connected(dataset([True, False, False])) is True


def test_cohorts_of_one_kind_of_slides_do_not_warn():
    assert connected(dataset([True, True])) is True
    assert connected(dataset([False, False])) is False
    assert connected(dataset([True, False], n_patches=1)) is None
    assert connected(dataset([True, False], graph="none")) is None
    assert connected(dataset([True, False], graph="features")) is True


@pytest.mark.parametrize(
    ("trained", "n_edges", "said"),
    [
        (True, 3, "S1: it has neither coordinates.*Likewise 1 more: S3"),
        (False, 9, "S1: its patches have neigh.*Likewise 1 more: S3"),
    ],
)
def test_prediction_of_slides_unlike_training_warns_once(trained, n_edges, said):
    graphs = UnlikeGraphs(GraphSpec(), trained)
    slides = {"S0": (3, 12 - n_edges), "S1": (3, n_edges), "S2": (1, 1), "S3": (3, n_edges)}
    found = BagWarnings()
    with found.held():
        for name, sizes in slides.items():
            graphs.look_at(name, *sizes)
    with pytest.warns(CohortWarning, match=said) as caught:
        found.warn()
    assert len(caught) == 1


@pytest.mark.parametrize("graph", GRAPHS)
def test_models_that_know_nothing_of_their_graphs_do_not_warn(graph):
    graphs = UnlikeGraphs(GraphSpec(graph), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphs.look_at("S0", 3, 3)
