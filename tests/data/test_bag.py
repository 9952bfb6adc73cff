"""A bag checks its content when it is read, and its errors name it."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from sk_momkd import Bag
from sk_momkd.data.bag import BagArrays
from sk_momkd.exceptions import BagError

FEATURES = np.arange(6.0).reshape(3, 2)
COORDS = np.array([[0, 0], [256, 0], [0, 256]])
EDGES = np.array([[0, 1], [1, 2]], dtype=np.int32)


class Stored:
    """A source in memory that counts how often it is read."""

    shape = (3, 2)

    def __init__(self):
        self.n_reads = 0

    def __str__(self):
        return "stored.h5"

    def read(self):
        self.n_reads += 1
        return BagArrays(FEATURES, COORDS, EDGES)


def with_value(value):
    features = np.ones((3, 4))
    features[1, 2] = value
    return features


@pytest.mark.parametrize(
    "features",
    [
        FEATURES.tolist(),
        FEATURES.astype(np.float16),
        FEATURES.astype(np.uint8),
        FEATURES[:, ::-1][:, ::-1],
        torch.tensor(FEATURES, requires_grad=True),
        torch.tensor(FEATURES).bfloat16(),
    ],
    ids=["list", "float16", "uint8", "strided", "tensor", "bfloat16"],
)
def test_features_of_any_array_are_float32(features):
    loaded = Bag(features).features
    np.testing.assert_array_equal(loaded, FEATURES)
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.empty((0, 4)), r"is empty.*\(0, 4\).*Remove the slide"),
        (np.empty((3, 0)), r"is empty.*\(3, 0\)"),
        (np.empty(0), r"\(0,\)"),
        (np.ones(4), r"two dimensions.*\(4,\)"),
        (np.ones((1, 2, 3)), r"two dimensions.*\(1, 2, 3\)"),
        (with_value(np.nan), r"1 NaN.*first \(NaN\) in instance 1, feature 2.*Extract"),
        (with_value(np.inf), r"first \(infinite\) in instance 1, feature 2"),
        (with_value(1e300), r"first \(infinite\) in instance 1, feature 2"),
        (np.array([["a", "b"]]), r"must be numbers, got dtype <U1"),
        (np.array([[1, None]], dtype=object), r"must be numbers, got dtype object"),
        (np.array([[1j]]), r"must be numbers, got dtype complex128"),
    ],
)
def test_load_unusable_features_raises_naming_the_bag(features, said):
    with pytest.raises(BagError, match=f"^bag 'S7'.*{said}"):
        Bag(features, bag_id="S7").load()


def test_load_opposite_infinities_raises():
    with pytest.raises(BagError, match="2 NaN or infinite"), np.errstate(invalid="ignore"):
        Bag([[np.inf, -np.inf]]).load()


@pytest.mark.parametrize(
    ("coords", "said"),
    [
        (COORDS[:2], r"\(2, 2\) do not fit 3 instances; expected \(3, 2\)"),
        (np.zeros((3, 3)), r"\(3, 3\) do not fit 3 instances"),
        (np.zeros(3), r"\(3,\) do not fit 3 instances"),
        (np.where(COORDS == 256, np.nan, 0), "finite numbers"),
        (COORDS.astype(str), "finite numbers"),
    ],
)
def test_load_wrong_coords_raises_naming_the_bag(coords, said):
    with pytest.raises(BagError, match=f"^bag 'S7': coordinates.*{said}"):
        Bag(FEATURES, coords, bag_id="S7").load()


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (EDGES.astype(float), r"integers of shape \(2, n_edges\), got float64"),
        (EDGES[[0, 1, 1]], r"got int32 of shape \(3, 2\)"),
        (EDGES[0], r"of shape \(2,\)"),
        (EDGES + 1, "holds instances 1 to 3, the bag has instances 0 to 2"),
        (EDGES - 1, "holds instances -1 to 1"),
    ],
)
def test_load_wrong_edge_index_raises_naming_the_bag(edges, said):
    with pytest.raises(BagError, match=f"^bag 'S7': edge_index.*{said}"):
        Bag(FEATURES, edge_index=edges, bag_id="S7").load()


def test_load_coords_and_edges_are_returned():
    arrays = Bag(FEATURES, torch.tensor(COORDS), edge_index=torch.tensor(EDGES)).load()
    np.testing.assert_array_equal(arrays.coords, COORDS)
    np.testing.assert_array_equal(arrays.edge_index, EDGES)
    assert arrays.edge_index.dtype == np.int64


def test_load_empty_edge_index_is_accepted():
    assert Bag(FEATURES, edge_index=np.empty((2, 0), int)).edge_index.shape == (2, 0)


@pytest.mark.parametrize("name", [None, "bag 3"])
def test_load_bag_without_id_is_named_by_the_caller(name):
    with pytest.raises(BagError, match=f"^{name or 'a bag without id'}: features"):
        Bag(np.ones(2)).load(name)


def test_shape_of_one_dimensional_features_raises_naming_the_bag():
    with pytest.raises(BagError, match=r"^bag 'S7': .*got shape \(2,\)"):
        _ = Bag(np.ones(2), bag_id="S7").n_features


def test_ids_of_any_type_become_text():
    bag = Bag(FEATURES, bag_id=7, patient_id=np.int64(8))
    assert (bag.bag_id, bag.patient_id) == ("7", "8")


def test_source_is_read_each_time_and_not_kept():
    source = Stored()
    bag = Bag(source, bag_id="S7")
    assert bag.is_lazy
    assert (bag.n_instances, bag.n_features, source.n_reads) == (3, 2, 0)
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, COORDS)
    np.testing.assert_array_equal(bag.edge_index, EDGES)
    assert source.n_reads == 3


def test_source_with_own_coords_and_edges_of_the_bag_these_win():
    bag = Bag(Stored(), COORDS + 1, edge_index=EDGES[::-1])
    np.testing.assert_array_equal(bag.coords, COORDS + 1)
    np.testing.assert_array_equal(bag.edge_index, EDGES[::-1])


def test_map_twice_applies_in_order_and_leaves_the_bag():
    bag = Bag(FEATURES, COORDS, bag_id="S7", patient_id="P7")
    mapped = bag.map(lambda x: x + 1).map(lambda x: 2 * x[:, :1])
    np.testing.assert_array_equal(mapped.features, 2 * (FEATURES[:, :1] + 1))
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(mapped.coords, COORDS)
    assert (mapped.shape, mapped.bag_id, mapped.patient_id) == ((3, 1), "S7", "P7")


def test_map_to_nan_raises_naming_bag_and_transformer():
    with pytest.raises(BagError, match=r"^bag 'S7' after its transformer: 6 NaN"):
        Bag(FEATURES, bag_id="S7").map(lambda x: x * np.nan).load()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copy_and_pickle_of_mapped_bag_are_equal(duplicate):
    bag = duplicate(Bag(FEATURES, COORDS, bag_id="S7", patient_id="P7").map(np.negative))
    np.testing.assert_array_equal(bag.features, -FEATURES)
    assert (bag.bag_id, bag.patient_id, len(bag.coords)) == ("S7", "P7", 3)


@pytest.mark.parametrize(
    ("bag", "text"),
    [
        (Bag(FEATURES), "Bag(3 instances x 2 features)"),
        (Bag(FEATURES, bag_id="S", edge_index=EDGES), "Bag('S', 3 instances x 2 features, graph)"),
        (Bag(np.ones((3, 2)), COORDS, patient_id="P"), "patient='P'"),
        (Bag(Stored(), bag_id="S"), "Bag('S', from stored.h5 (custom))"),
    ],
)
def test_repr_says_what_the_bag_holds(bag, text):
    assert text in repr(bag)


def test_repr_of_features_without_dimension():
    assert "Bag('S1'" in repr(Bag(3.0, bag_id="S1"))


def test_load_one_dimensional_empty_slide_is_called_empty():
    with pytest.raises(BagError, match=r"bag 'S1' is empty.*Remove the slide"):
        Bag(np.empty(0), bag_id="S1").load()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_load_opposite_infinities_warns_not():
    with pytest.raises(BagError, match="2 NaN or infinite"):
        Bag([[np.inf, -np.inf]]).load()


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_bag_missing_ids_are_none(missing):
    bag = Bag(np.ones((1, 2)), bag_id=missing, patient_id=missing)
    assert bag.bag_id is None
    assert bag.patient_id is None
