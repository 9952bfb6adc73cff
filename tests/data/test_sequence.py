"""Sequences take bags in any form and are cut without reading a feature."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from torch_geometric.data import Data

from sk_momkd import ABMILClassifier, Bag, BagSequence, as_bags, evaluate_external
from sk_momkd.data.bag import BagArrays
from sk_momkd.data.omics import join_omics
from sk_momkd.data.validation import check_bags
from sk_momkd.exceptions import BagError, LeakageError
from sk_momkd.io.readers import SlideFile

A = np.arange(6.0).reshape(3, 2)
B = np.arange(4.0).reshape(2, 2) + 10
COORDS = {3: np.array([[0, 0], [1, 0], [0, 1]]), 2: np.array([[0, 0], [1, 0]])}


class CountingSource:
    shape = (3, 2)
    n_reads = 0

    def read(self):
        type(self).n_reads += 1
        return BagArrays(A, None, None)


@pytest.fixture
def lazy(monkeypatch):
    monkeypatch.setattr(CountingSource, "n_reads", 0)
    return BagSequence(Bag(CountingSource(), bag_id=f"S{i}") for i in range(5))


def tensors(*arrays, dtype=torch.float32):
    return [torch.tensor(a, dtype=dtype) for a in arrays]


def objects(*items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


RAGGED = {
    "sequence": BagSequence([Bag(A), Bag(B)]),
    "bags": [Bag(A), Bag(B)],
    "bags_and_arrays": [Bag(A), B],
    "arrays": [A, B],
    "tuple": (A, B),
    "object_array": objects(A, B),
    "object_array_of_bags": objects(Bag(A), Bag(B)),
    "pairs": [(A, COORDS[3]), (B, COORDS[2])],
    "frames": [pd.DataFrame(A), pd.DataFrame(B)],
    "graphs": [Data(x=t) for t in tensors(A, B)],
    "tensors": tensors(A, B),
    "bfloat16": tensors(A, B, dtype=torch.bfloat16),
    "nested_lists": [A.tolist(), B.tolist()],
}
CUBES = {
    "array": np.stack([A, A + 1]),
    "tensor": torch.tensor(np.stack([A, A + 1])),
    "bfloat16": torch.tensor(np.stack([A, A + 1])).bfloat16(),
    "equal_arrays": [A, A + 1],
    "equal_lists": [A.tolist(), (A + 1).tolist()],
}
TABLES = {
    "array": A,
    "tensor": torch.tensor(A),
    "bfloat16": torch.tensor(A).bfloat16(),
    "list": A.tolist(),
    "frame": pd.DataFrame(A),
}


@pytest.mark.parametrize("X", RAGGED.values(), ids=RAGGED.keys())
def test_as_bags_ragged_form_gives_the_bags(X):
    bags = as_bags(X)
    assert isinstance(bags, BagSequence)
    assert bags.shape == (2,)
    for bag, expected in zip(bags, (A, B), strict=True):
        np.testing.assert_array_equal(bag.features, expected)


@pytest.mark.parametrize("X", CUBES.values(), ids=CUBES.keys())
def test_as_bags_three_dimensions_are_bags_of_equal_size(X):
    np.testing.assert_array_equal([bag.features for bag in as_bags(X)], [A, A + 1])


@pytest.mark.parametrize("X", TABLES.values(), ids=TABLES.keys())
def test_as_bags_two_dimensions_are_bags_of_one_instance(X):
    np.testing.assert_array_equal([bag.features for bag in as_bags(X)], A[:, None])


def test_as_bags_sequence_is_returned_itself(lazy):
    assert as_bags(lazy) is lazy


def test_as_bags_pairs_keep_coords():
    for bag in as_bags(RAGGED["pairs"]):
        np.testing.assert_array_equal(bag.coords, COORDS[bag.n_instances])


def test_as_bags_graph_keeps_positions_edges_and_ids():
    x, pos = tensors(A, COORDS[3])
    edges = torch.tensor([[0, 1], [1, 2]])
    graph = Data(x=x, pos=pos, edge_index=edges, bag_id="S1", patient_id="P1")
    bag = as_bags([graph])[0]
    assert (bag.bag_id, bag.patient_id) == ("S1", "P1")
    np.testing.assert_array_equal(bag.coords, COORDS[3])
    np.testing.assert_array_equal(bag.edge_index, edges)


def test_as_bags_graph_without_positions_has_no_coords():
    bag = as_bags([Data(x=tensors(A)[0])])[0]
    assert bag.coords is None
    assert bag.edge_index is None
    assert bag.bag_id is None


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (Bag(A), r"X is a single Bag.*pass \[bag\]"),
        (Data(x=torch.tensor(A)), r"X is a single Data.*pass \[bag\]"),
        (np.ones(3), r"ndarray of shape \(3,\)"),
        (np.ones((1, 1, 1, 1)), r"of shape \(1, 1, 1, 1\)"),
        ([], r"list of shape \(0,\)"),
        ("slides.csv", r"X is a str, expected bags\. Pass read_bags\(X\)"),
        (
            [(A, COORDS[3]), (A, COORDS[3], A)],
            r"Element 1 of X is a tuple, expected.*\(features, coords\)",
        ),
    ],
)
def test_as_bags_anything_else_raises(X, said):
    with pytest.raises(BagError, match=said):
        as_bags(X)


def test_sequence_of_arrays_raises_naming_the_remedy():
    with pytest.raises(BagError, match=r"Element 1 is a ndarray.*as_bags"):
        BagSequence([Bag(A), B])


def test_sequence_duplicate_ids_raises_naming_them():
    with pytest.raises(BagError, match="1 bag ids occur more than once: 'S1'"):
        BagSequence(Bag(A, bag_id=i) for i in ("S0", "S1", "S1", None, None))


@pytest.mark.parametrize(("index", "expected"), [(0, "S0"), (-1, "S4"), (np.int64(3), "S3")])
def test_index_integer_gives_the_bag(lazy, index, expected):
    assert lazy[index].bag_id == expected
    assert CountingSource.n_reads == 0


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, None, 2), [1, 3]),
        (slice(5, 9), []),
        (np.array([3, 0]), [3, 0]),
        ([4, -5], [4, 0]),
        (np.array([2, 2, 0, 2]), [2, 2, 0, 2]),
        (np.array([1, 4], dtype=np.uint8), [1, 4]),
        (torch.tensor([1, 0]), [1, 0]),
        (np.array([True, False, False, True, False]), [0, 3]),
        ([False, True, False, False, False], [1]),
        (pd.Series([False, True, False, False, True]), [1, 4]),
        ((np.array([1, 2]), Ellipsis), [1, 2]),
        ((slice(2), Ellipsis), [0, 1]),
        ([], []),
        (np.array([]), []),
        ((np.array([], dtype=int), Ellipsis), []),
    ],
)
def test_index_of_many_gives_a_sequence_and_reads_nothing(lazy, index, expected):
    part = lazy[index]
    assert isinstance(part, BagSequence)
    assert list(part.ids) == [f"S{i}" for i in expected]
    assert part.shape == (len(part),) == (len(expected),)
    assert CountingSource.n_reads == 0


@pytest.mark.parametrize(
    "index", [5, -6, [5], "S0", (0, 1), (Ellipsis,), np.array([True, False]), np.array([0.0])]
)
def test_index_unusable_raises(lazy, index):
    with pytest.raises(IndexError):
        lazy[index]


@pytest.mark.parametrize("index", [np.array([3, 1]), [0, 2], np.arange(5) > 2, slice(0, 2)])
def test_safe_indexing_of_scikit_learn_keeps_the_type(lazy, index):
    part = _safe_indexing(lazy, index)
    assert isinstance(part, BagSequence)
    assert list(part.ids) == list(lazy.ids[index])
    assert CountingSource.n_reads == 0


def test_splitter_of_scikit_learn_takes_the_sequence(lazy):
    parts = [lazy[test].ids for _, test in KFold(5).split(lazy)]
    assert np.concatenate(parts).tolist() == lazy.ids.tolist()


def test_bootstrap_of_a_bootstrap_can_be_cut_and_pickled(lazy):
    again = pickle.loads(pickle.dumps(lazy[[1, 1, 0]][[0, 1, 1]]))
    assert list(again.ids) == ["S1", "S1", "S1"]


def test_pickle_of_bags_in_files_holds_their_paths_only(tmp_path):
    values = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    for i in range(3):
        with h5py.File(tmp_path / f"S{i}.h5", "w") as file:
            file["features"] = values + i
    paths = [str(tmp_path / f"S{i}.h5") for i in range(3)]
    bags = BagSequence(Bag(SlideFile(p), bag_id=p[-5:-3]) for p in paths)
    _ = bags[0].features
    stored = pickle.dumps(bags)
    assert len(stored) < 1000 + sum(map(len, paths)) < values.nbytes / 20
    assert all(path.encode() in stored for path in paths)
    np.testing.assert_array_equal(pickle.loads(stored)[2].features, values + 2)


def test_groups_are_patients_or_the_bag_itself():
    patients = ["P1", None, "P0", "P1", None, "P0"]
    bags = BagSequence(Bag(A, patient_id=p) for p in patients)
    assert bags.groups().tolist() == [0, 1, 2, 0, 3, 2]
    assert bags.patient_ids.tolist() == patients
    assert bags.ids.tolist() == [None] * 6


def test_groups_of_patients_named_like_positions_stay_apart():
    assert len(set(BagSequence([Bag(A), Bag(A, patient_id="0")]).groups())) == 2


def test_groups_of_repeated_bags_are_one_group():
    anonymous, named = Bag(A), Bag(A, bag_id="S1")
    bags = BagSequence([anonymous, named, Bag(A)])
    again = bags[[0, 1, 0, 2, 1]]
    assert again.groups().tolist() == [0, 1, 0, 2, 1]
    assert again.map(lambda x: x + 1).groups().tolist() == [0, 1, 0, 2, 1]
    assert again[1:].groups().tolist() == [0, 1, 2, 0]
    assert BagSequence([anonymous, Bag(A), anonymous]).groups().tolist() == [0, 1, 0]


def test_groups_of_a_bag_named_like_a_patient_stay_apart():
    bags = BagSequence([Bag(A, bag_id="P"), Bag(A, patient_id="P")])
    assert bags.groups().tolist() == [0, 1]


def test_groups_of_no_bags_are_integers(lazy):
    assert lazy[[]].groups().dtype == int


def test_map_is_applied_when_a_bag_is_read(lazy):
    mapped = lazy.map(lambda x: x + 1)
    assert CountingSource.n_reads == 0
    np.testing.assert_array_equal(mapped[1].features, A + 1)
    np.testing.assert_array_equal(lazy[1].features, A)
    assert list(mapped.ids) == list(lazy.ids)


def test_map_of_a_bootstrap_keeps_the_repeats(lazy):
    assert lazy[[1, 1, 0]].map(np.negative).ids.tolist() == ["S1", "S1", "S0"]


def test_name_without_id_is_the_place_in_the_whole_sequence():
    bags = BagSequence([Bag(A, bag_id="S0"), Bag(A), Bag(A), Bag(A)])
    assert [bags.name(i) for i in range(2)] == ["bag 'S0'", "bag 1"]
    assert bags[1:][[2, 0]].map(np.negative).name(0) == "bag 3"


def test_repr_of_sequence_shows_the_first_bag(lazy):
    assert repr(lazy).startswith("BagSequence of 5 bags, first Bag('S0'")
    assert repr(lazy[[]]) == "BagSequence of 0 bags"


@pytest.mark.parametrize("odd", [np.empty(0), np.ones(5)])
def test_as_bags_first_bag_of_one_dimension_raises_naming_it(odd):
    bags = as_bags([odd, np.ones((3, 2))])
    with pytest.raises(BagError, match="bag 0"):
        bags[0].load(bags.name(0))


def test_as_bags_ragged_lists_raise_naming_the_bag():
    with pytest.raises(BagError, match=r"[Bb]ag 1"):
        as_bags([[[1, 2], [3, 4]], [[1, 2], [3]]])


ARRAYS = {f"S{i}": np.full((2, 3), i, dtype=float) for i in range(4)}


@pytest.mark.parametrize("take", [as_bags, lambda X: check_bags(ABMILClassifier(), X, reset=True)])
@pytest.mark.parametrize(
    ("X", "said"),
    [
        (ARRAYS, r"X is a dict.*as_bags\(list\(X\.values\(\)\), bag_ids=list\(X\)\)"),
        (pd.Series(ARRAYS), r"X is a Series.*as_bags\(X\.tolist\(\), bag_ids=X\.index\)"),
        (["a/S1.h5", "a/S2.h5"], r"list of paths.*read_bags\(X\)"),
        ([Path("S1.h5")], r"list of paths.*read_bags\(X\)"),
        (np.array(["S1.h5"]), r"ndarray of paths.*read_bags\(X\)"),
        ("folder", r"X is a str.*read_bags\(X\)"),
    ],
)
def test_other_containers_raise_naming_the_call(take, X, said):
    with pytest.raises(BagError, match=said):
        take(X)


def test_as_bags_with_ids_joins_a_frame_of_these_ids():
    rna = pd.DataFrame({"A": [30.0, 10, 0, 20]}, index=["3", "1", "0", "2"])
    bags = as_bags(np.ones((4, 2, 3)), patient_ids=range(4))
    table, rows = join_omics(rna, bags)
    assert table.rows(rows)["A"].tolist() == [0, 10, 20, 30]
    named = as_bags(list(ARRAYS.values()), bag_ids=list(ARRAYS), patient_ids=["P", "P", None, "Q"])
    assert named.ids.tolist() == list(ARRAYS)
    assert named.patient_ids.tolist() == ["P", "P", None, "Q"]
    assert as_bags(named, bag_ids=["S0.svs", None, None, None])[0].bag_id == "S0"


def test_as_bags_with_wrong_ids_raises():
    with pytest.raises(BagError, match="bag_ids has 3 ids for 4 bags"):
        as_bags(np.ones((4, 2, 3)), bag_ids=["a", "b", "c"])
    with pytest.raises(BagError, match="bag 'S1' has bag_id='S1' already, got 'S2'"):
        as_bags([Bag(np.ones((1, 2)), bag_id="S1")], bag_ids=["S2"])
    with pytest.raises(BagError, match="'a' and 'a '"):
        as_bags(np.ones((2, 2, 3)), bag_ids=["a", "a "])


@pytest.mark.parametrize("kind", [BagSequence, list])
def test_scaler_of_tables_on_bags_names_the_remedy(kind):
    bags = kind(Bag(np.ones((2, 3)), bag_id=f"S{i}") for i in range(4))
    with pytest.raises(BagError, match=r"InstanceTransformer\(StandardScaler\(\)\) or BagPooling"):
        StandardScaler().fit(bags)
    assert np.asarray(bags, dtype=object).shape == (4,)


def test_bagging_of_bags_names_the_remedy():
    bags = BagSequence(Bag(np.ones((2, 3))) for _ in range(4))
    with pytest.raises(BagError, match="StandardScaler and BaggingClassifier do, cannot take bags"):
        BaggingClassifier(ABMILClassifier()).fit(bags, [0, 1, 0, 1])


def test_index_of_a_frame_holds_patients_unless_it_counts_the_rows():
    values = np.arange(12.0).reshape(4, 3) + 1
    frame = pd.DataFrame(values, index=["P1", "P1", "P0", None])
    bags = as_bags(frame)
    assert bags.patient_ids.tolist() == ["P1", "P1", "P0", None]
    assert bags[0].features.tolist() == [values[0].tolist()]
    assert as_bags(pd.DataFrame(values)).patient_ids.tolist() == [None] * 4
    clf = ABMILClassifier(dim=2, attention_dim=2, max_epochs=1, early_stopping=False)
    clf.fit(frame, [0, 0, 1, 1])
    with pytest.raises(LeakageError, match="'P1'"):
        evaluate_external(clf, frame[:3], [0, 0, 1])


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ([{"features": A}], "Element 0 of X is a dict, expected a Bag"),
        ([A, None], "Element 1 of X is a NoneType"),
        (["S1", "S2"], "Element 0 of X is a str"),
        ([[A, COORDS[3]]], r"Element 0 of X is a list.*\(features, coords\)"),
        ([(A, COORDS[3], None)], "Element 0 of X is a tuple"),
        ([AnnData(A)], "Element 0 of X is a AnnData"),
        ([A[None]], r"shape \(1, 3, 2\)"),
        (None, "X is a NoneType, expected bags"),
        ({1, 2}, "X is a set, expected bags"),
    ],
)
@pytest.mark.parametrize("entry", [lambda X: as_bags(X).load(0), lambda X: check(X).load(0)])
def test_elements_that_are_no_bags_are_named(entry, X, said):
    with pytest.raises(BagError, match=said):
        entry(X)


def check(X):
    return check_bags(ABMILClassifier(), X, reset=True)


def test_generator_of_bags_names_the_remedy():
    with pytest.raises(BagError, match=r"X is a generator, expected bags\. Pass list\(X\)"):
        as_bags(x for x in [A, B])


def test_frames_in_another_order_of_columns_are_refused():
    one, other = pd.DataFrame(A, columns=["a", "b"]), pd.DataFrame(B, columns=["b", "a"])
    assert as_bags([one, other[["a", "b"]]])[0].features.tolist() == A.tolist()
    with pytest.raises(BagError, match="Element 1 of X has the columns 'b', 'a', element 0 has"):
        as_bags([one, other])


def test_sparse_matrix_is_a_bag():
    assert as_bags([sparse.csr_matrix(A)])[0].features.tolist() == A.tolist()


def test_empty_ids_are_missing_and_texts_of_missing_ones_are_refused():
    bags = BagSequence(Bag(A, bag_id="", patient_id=" ") for _ in range(3))
    assert bags.groups().tolist() == [0, 1, 2]
    assert bags.ids.tolist() == [None] * 3
    for text in ("nan", "None", "<NA>"):
        assert BagSequence([Bag(A, patient_id=text)]).patient_ids.tolist() == [text]
        with pytest.raises(BagError, match=f"2 bags have the patient id '{text}'"):
            BagSequence(Bag(A, patient_id=text) for _ in range(2))
