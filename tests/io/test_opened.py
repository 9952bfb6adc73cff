"""Bags that are read block by block while their file is open."""

import h5py
import numpy as np
import pytest

from sk_momkd import Bag, cache_bags, read_bags
from sk_momkd.exceptions import BagError
from sk_momkd.io.readers import SlideFile


def write(path, features, **rest):
    with h5py.File(path, "w") as file:
        file["features"] = features
        for name, values in rest.items():
            file[name] = values
    return path


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 23, 100])
@pytest.mark.parametrize("batched", [False, True])
def test_blocks_of_a_file_are_its_features_in_order(tmp_path, features, size, batched):
    stored = features[None] if batched else features
    path = write(tmp_path / "S.h5", stored, coords=np.zeros((23, 2), dtype=int))
    bag = Bag(SlideFile(str(path)), bag_id="S")
    with bag.opened(size) as opened:
        assert opened.shape == (23, 5)
        assert opened.frame.features.shape == (23, 0)
        assert opened.frame.coords.shape == (23, 2)
        for _ in range(2):  # read anew in each pass
            blocks = list(opened.read())
            assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert np.array_equal(np.concatenate(blocks), features)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_a_cached_file_are_its_features(tmp_path, features, dtype):
    write(tmp_path / "S.h5", features)
    bag = cache_bags(read_bags(tmp_path), tmp_path / "cache", dtype=dtype)[0]
    for _ in range(2):  # made, then found
        with bag.opened(7) as opened:
            assert np.array_equal(np.concatenate(list(opened.read())), bag.features)


def test_blocks_stored_graph_is_that_of_load(tmp_path, features):
    edges = np.array([[0, 1], [2, 3]])
    write(tmp_path / "S.h5", features, edge_index_k8=edges)
    bag = read_bags(tmp_path)[0]
    with bag.opened(10) as opened:
        assert np.array_equal(opened.frame.edge_index, bag.edge_index)


def test_bag_that_must_be_read_whole_opens_as_nothing(tmp_path, features):
    write(tmp_path / "S.h5", features)
    for bag in (Bag(features), read_bags(tmp_path)[0].map(lambda x: x + 1)):
        with bag.opened(5) as opened:
            assert opened is None


def test_blocks_with_nan_name_the_bag_and_the_instances(tmp_path, features):
    features[12, 3] = np.nan
    write(tmp_path / "S.h5", features)
    with (
        read_bags(tmp_path)[0].opened(5) as opened,
        pytest.raises(BagError, match=r"bag 'S', instances 10 to 14.*NaN"),
    ):
        list(opened.read())


@pytest.mark.parametrize("stored", [np.zeros((0, 5)), np.zeros(5), np.zeros((2, 3, 5))])
def test_opened_features_of_odd_shape_raise_naming_the_bag(tmp_path, stored):
    write(tmp_path / "S.h5", stored)
    with pytest.raises(BagError, match="bag 'S'"), read_bags(tmp_path)[0].opened(5):
        pass


def test_opened_file_is_closed_afterwards(tmp_path, features):
    path = write(tmp_path / "S.h5", features)
    with read_bags(tmp_path)[0].opened(5) as opened:
        next(opened.read())
    with h5py.File(path, "a") as file:  # a handle left open would refuse to be written
        file["more"] = 1


def test_error_of_the_reader_is_not_blamed_on_the_file(tmp_path, features):
    write(tmp_path / "S.h5", features)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), read_bags(tmp_path)[0].opened(5):
        raise RuntimeError("out of memory")


def test_opened_coords_that_do_not_fit_raise_as_load_does(tmp_path, features):
    write(tmp_path / "S.h5", features, coords=np.zeros((3, 2)))
    bag = read_bags(tmp_path)[0]
    with pytest.raises(BagError) as of_load:
        bag.load()
    with pytest.raises(BagError) as of_opened, bag.opened(5):
        pass
    assert str(of_opened.value) == str(of_load.value)
