"""The contiguous copy equals the file, follows its changes and survives damage."""

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from sk_momkd import Bag, BagSequence, cache_bags, read_bags
from sk_momkd.exceptions import BagError, BagFileError

X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
COORDS = np.arange(100).reshape(50, 2)


@pytest.fixture
def bags(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("features", data=X, chunks=(1, 8))
        file["coords"] = COORDS
        file["edge_index_k8"] = np.array([[0, 1], [2, 3]])
    return read_bags(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_cached_bag_equals_the_file(bags, tmp_path, dtype):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype=dtype)
    for _ in range(2):  # made, then read
        features, coords, edges, _ = bag.load()
        np.testing.assert_array_equal(features, X.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(coords, COORDS)
        assert edges.tolist() == [[2, 3], [0, 1]]
    assert (bag.bag_id, bag.info.format, bag.shape) == ("S1", "momkd", (50, 8))


def test_cached_bag_is_read_from_the_copy_alone(bags, tmp_path, monkeypatch):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(bag.features, X)


def test_changed_file_is_read_again(bags, tmp_path):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    with h5py.File(tmp_path / "S1.h5", "a") as file:
        file["features"][:] = X + 1
    os.utime(tmp_path / "S1.h5", ns=(1, 1))
    np.testing.assert_array_equal(bag.features, X + 1)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY cut off", b"PK\x03\x04 cut off"])
def test_damaged_copy_is_made_again(bags, tmp_path, content):
    (bag,) = cache_bags(bags, tmp_path / "cache")
    bag.load()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(content)
    np.testing.assert_allclose(bag.features, X, atol=2e-3)


def test_many_builders_at_once_leave_one_sound_copy(bags, tmp_path):
    cached = cache_bags(bags, tmp_path / "cache", dtype="float32")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached[0].features, range(32)))
    assert all(np.array_equal(features, X) for features in results)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_cannot_be_cached_is_explained(bags, tmp_path):
    with pytest.raises(BagError, match="bag 0 is not read from a file"):
        cache_bags(BagSequence([Bag(X)]), tmp_path / "cache")
    with pytest.raises(BagError, match="float16"):
        cache_bags(bags, tmp_path / "cache", dtype="bfloat16")
    with h5py.File(tmp_path / "S1.h5", "a") as file:
        file["features"][3, 3] = 1e6
    with pytest.raises(BagError, match=r"S1\.h5.*1e\+06.*dtype='float32'"):
        cache_bags(bags, tmp_path / "cache")[0].load()
    (tmp_path / "S1.h5").unlink()
    with pytest.raises(BagFileError, match=r"S1\.h5 does not exist"):
        cache_bags(bags, tmp_path / "cache")[0].load()
