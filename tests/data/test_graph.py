"""Graphs of bags against neighbours counted by hand."""

import numpy as np
import pytest

from sk_momkd.data.bag import BagArrays
from sk_momkd.data.graph import build_edges
from sk_momkd.exceptions import BagError

LINE = np.array([[0, 0], [1, 0], [3, 0], [7, 0]])
STORED = np.array([[0, 3], [3, 0]])


def bag(coords=None, edges=None, features=None):
    n = 4 if coords is None else len(coords)
    return BagArrays(np.ones((n, 2)) if features is None else features, coords, edges)


def pairs(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize("graph", ["spatial", "features"])
def test_build_edges_single_patch_gives_no_edges(graph):
    assert build_edges(bag(LINE[:1]), graph=graph).shape == (2, 0)


def test_build_edges_patch_at_the_origin_has_neighbours():
    edges = build_edges(bag(LINE), n_neighbors=1)
    assert edges[0, edges[1] == 0].tolist() == [1]
    assert edges[1, edges[0] == 0].tolist() == [1]


@pytest.mark.parametrize(
    ("edge_flow", "expected"),
    [
        ("neighbors", [(1, 0), (0, 1), (1, 2), (2, 3)]),
        ("release", [(0, 1), (1, 0), (2, 1), (3, 2)]),
        ("symmetric", [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]),
    ],
)
def test_build_edges_flow_points_as_asked(edge_flow, expected):
    edges = build_edges(bag(LINE), n_neighbors=1, edge_flow=edge_flow)
    assert edges.shape == (2, len(expected))
    assert edges.dtype == np.int64
    assert pairs(edges) == set(expected)


def test_build_edges_neighbors_every_patch_receives_from_k():
    coords = np.random.default_rng(1).integers(0, 9999, size=(30, 2))
    edges = build_edges(bag(coords), n_neighbors=5)
    assert np.bincount(edges[1]).tolist() == [5] * 30


@pytest.mark.parametrize("graph", ["auto", "stored"])
@pytest.mark.parametrize("edge_flow", ["neighbors", "release", "symmetric"])
def test_build_edges_stored_graph_is_used_as_it_is(graph, edge_flow):
    edges = build_edges(bag(LINE, STORED), graph=graph, edge_flow=edge_flow)
    np.testing.assert_array_equal(edges, STORED)


def test_build_edges_auto_prefers_stored_then_coords_then_none():
    assert pairs(build_edges(bag(LINE, STORED), n_neighbors=1)) == {(0, 3), (3, 0)}
    assert build_edges(bag(LINE), n_neighbors=1).shape == (2, 4)
    assert build_edges(bag()).shape == (2, 0)


def test_build_edges_spatial_ignores_a_stored_graph():
    assert (1, 2) in pairs(build_edges(bag(LINE, STORED), graph="spatial", n_neighbors=1))


def test_build_edges_features_ignores_coords():
    looks = np.array([[0.0], [100.0], [1.0], [102.0]])
    edges = build_edges(bag(LINE, features=looks), graph="features", n_neighbors=1)
    assert pairs(edges) == {(2, 0), (3, 1), (0, 2), (1, 3)}


def test_build_edges_features_all_equal_have_no_self_loops():
    edges = build_edges(bag(features=np.ones((12, 3))), graph="features", n_neighbors=3)
    assert edges.shape == (2, 36)
    assert (edges[0] != edges[1]).all()


def test_build_edges_none_ignores_everything():
    edges = build_edges(bag(LINE, STORED), graph="none")
    assert edges.shape == (2, 0)
    assert edges.dtype == np.int64


@pytest.mark.parametrize(
    ("graph", "said"), [("spatial", "no coordinates"), ("stored", "no edge_index")]
)
def test_build_edges_of_what_is_absent_raises(graph, said):
    with pytest.raises(BagError, match=f"graph='{graph}', but the bag has {said}"):
        build_edges(bag(), graph=graph)
