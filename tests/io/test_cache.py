"""The contiguous copy equals the file, follows its changes and survives damage."""

import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from operator import attrgetter

import h5py
import numpy as np
import pytest
import torch

from sk_momkd import Bag, BagSequence, cache_bags, patient_bags, read_bags
from sk_momkd.exceptions import BagError, BagFileError
from sk_momkd.io import cache
from sk_momkd.io.readers import SlideFile

X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
COORDS = np.arange(100).reshape(50, 2)


@pytest.fixture
def bags(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("features", data=X, chunks=(1, 8))
        file["coords"] = COORDS
        file["edge_index_k8"] = np.array([[0, 1], [2, 3]])
    return read_bags(tmp_path)


def rounded(x, dtype):
    """`x` after storage; torch is the reference for bfloat16."""
    return torch.tensor(x).to(getattr(torch, dtype)).float().numpy()


@pytest.fixture
def at_rest(monkeypatch):
    """Files written a moment ago count as unchanged for long."""
    monkeypatch.setattr(cache, "_AT_REST", -(10**12))


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are hashed."""
    seen, plain = [], cache._hash_file
    monkeypatch.setattr(cache, "_hash_file", lambda p: seen.append(p) or plain(p))
    return seen


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_cached_bag_equals_the_file(bags, tmp_path, dtype):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype=dtype)
    for _ in range(2):  # made, then read
        features, coords, edges, _ = bag.load()
        np.testing.assert_array_equal(features, rounded(X, dtype))
        np.testing.assert_array_equal(coords, COORDS)
        assert edges.tolist() == [[2, 3], [0, 1]]
    assert (bag.bag_id, bag.info.format, bag.shape) == ("S1", "momkd", (50, 8))


def test_cached_bag_is_read_from_the_copy_alone(bags, tmp_path, monkeypatch):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(bag.features, X)


def test_bfloat16_rounds_to_nearest_even_and_keeps_the_range():
    bits = np.arange(0, 2**32, 2**7 + 1, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3.38e38)]
    ties = (np.arange(1, 9) << 15).astype(np.uint32).view(np.float32)
    values = np.concatenate([values, ties, [0.0, -0.0, 1.0, 1e38]]).astype(np.float32)
    stored = cache._to_bfloat16(values)
    arrays = cache._as_numbers(cache.BagArrays(stored, None, None), "bfloat16")
    expected = rounded(values, "bfloat16")
    np.testing.assert_array_equal(arrays.features.view(np.uint32), expected.view(np.uint32))


def test_bfloat16_takes_what_float16_does_not_and_refuses_what_rounds_to_infinity(tmp_path):
    for name, value in (("S1", 1e6), ("S2", 3.4e38)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.full((2, 3), value, np.float32)
    large, huge = cache_bags(read_bags(tmp_path), tmp_path / "cache", dtype="bfloat16")
    np.testing.assert_allclose(large.features, 1e6, rtol=2**-8)
    with pytest.raises(BagError, match=r"S2\.h5.*3\.4e\+38.*bfloat16.*dtype='float32'"):
        huge.load()


def test_copies_of_each_dtype_lie_side_by_side(bags, tmp_path):
    folder = tmp_path / "cache"
    for _ in range(2):
        for dtype in ("float32", "bfloat16", "float16"):
            features = cache_bags(bags, folder, dtype=dtype)[0].features
            np.testing.assert_array_equal(features, rounded(X, dtype))
    sizes = {path.suffixes[-2]: path.stat().st_size for path in folder.glob("*.raw")}
    assert sizes == {".bfloat16": 800, ".float16": 800, ".float32": 1600}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_moved_or_copied_cohort_finds_its_copies(bags, tmp_path, monkeypatch, how):
    cache_bags(bags, tmp_path / "cache", dtype="float32")[0].load()
    (tmp_path / "elsewhere").mkdir()
    move = shutil.move if how == "moved" else shutil.copy
    move(tmp_path / "S1.h5", tmp_path / "elsewhere" / "renamed.h5")
    (bag,) = cache_bags(read_bags(tmp_path / "elsewhere"), tmp_path / "cache", dtype="float32")
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(bag.features, X)


def test_changed_content_with_equal_size_and_time_is_read_again(bags, tmp_path, at_rest):
    path = tmp_path / "S1.h5"
    os.utime(path, ns=(1, 1))
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    size = path.stat().st_size
    time.sleep(0.02)  # beyond the clock tick of the file system
    with h5py.File(path, "a") as file:
        file["features"][:] = X + 1
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    np.testing.assert_array_equal(bag.features, X + 1)


def test_unchanged_file_at_rest_is_hashed_once(bags, tmp_path, at_rest, hashed):
    for _ in range(3):
        cache_bags(bags, tmp_path / "cache", dtype="float32")[0].load()
        cache_bags(bags, tmp_path / "cache", dtype="float16")[0].load()
    assert len(hashed) == 1


def test_file_that_has_just_changed_is_hashed_each_time(bags, tmp_path, hashed):
    (bag,) = cache_bags(bags, tmp_path / "cache")
    bag.load()
    bag.load()
    assert len(hashed) == 2
    assert not list((tmp_path / "cache").glob("*.digest"))


def test_file_that_changes_while_it_is_read_is_not_kept(bags, tmp_path, monkeypatch):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    plain = SlideFile.read

    def read_then_touch(self):
        arrays = plain(self)
        os.utime(self.path, ns=(5, 5))
        return arrays

    monkeypatch.setattr(SlideFile, "read", read_then_touch)
    np.testing.assert_array_equal(bag.features, X)
    assert not list((tmp_path / "cache").glob("*.raw"))


def test_slideflow_index_belongs_to_the_content(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "S1.pt")
    np.savez(tmp_path / "S1.index.npz", COORDS)
    (bag,) = cache_bags(read_bags(tmp_path / "S1.pt"), tmp_path / "cache")
    np.testing.assert_array_equal(bag.coords, COORDS)
    np.savez(tmp_path / "S1.index.npz", COORDS + 1)
    np.testing.assert_array_equal(bag.coords, COORDS + 1)
    (tmp_path / "S1.index.npz").unlink()
    assert bag.coords is None


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


def test_many_builders_at_once_leave_one_sound_copy(bags, tmp_path, at_rest):
    cached = cache_bags(bags, tmp_path / "cache", dtype="float32")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached[0].features, range(32)))
    assert all(np.array_equal(features, X) for features in results)
    suffixes = [path.suffix for path in (tmp_path / "cache").iterdir()]
    assert sorted(suffixes) == [".digest", ".npz", ".raw"]


def test_two_processes_that_build_at_once_leave_sound_copies(bags, tmp_path):
    cached = cache_bags(bags, tmp_path / "cache", dtype="bfloat16")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        results = list(pool.map(attrgetter("features"), [cached[0]] * 8))
    assert all(np.array_equal(features, rounded(X, "bfloat16")) for features in results)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_what_cannot_be_cached_is_explained(bags, tmp_path):
    with pytest.raises(BagError, match="bag 0 is not read from a file"):
        cache_bags(BagSequence([Bag(X)]), tmp_path / "cache")
    with pytest.raises(BagError, match="'float16', 'bfloat16', 'float32', got 'float8'"):
        cache_bags(bags, tmp_path / "cache", dtype="float8")
    with h5py.File(tmp_path / "S1.h5", "a") as file:
        file["features"][3, 3] = 1e6
    with pytest.raises(BagError, match=r"S1\.h5.*1e\+06.*dtype='float32'"):
        cache_bags(bags, tmp_path / "cache")[0].load()
    (tmp_path / "S1.h5").unlink()
    with pytest.raises(BagFileError, match=r"S1\.h5 does not exist"):
        cache_bags(bags, tmp_path / "cache")[0].load()


def test_cache_of_patients_caches_their_slides(bags, tmp_path):
    shutil.copy(bags[0].source.path, tmp_path / "S2.h5")
    slides = read_bags(tmp_path)
    bags = patient_bags([Bag(b.source, bag_id=b.bag_id, patient_id="P") for b in slides])
    cached = cache_bags(bags, tmp_path / "cache", dtype="float32")
    for one, other in zip(cached[0].load(), bags[0].load(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list((tmp_path / "cache").glob("*.raw"))) == 1  # both files have one content


def test_cache_folder_that_cannot_be_made_or_vanishes(bags, tmp_path):
    with pytest.raises(BagFileError, match="cannot be a folder of copies"):
        cache_bags(bags, tmp_path / "S1.h5")
    cached = cache_bags(bags, tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    assert cached[0].load().features.shape == bags[0].shape
    (tmp_path / "cache").rename(tmp_path / "gone")
    (tmp_path / "cache").touch()
    with pytest.raises(BagFileError, match=r"copy .* cannot be written.*without cache_bags"):
        cached[0].load()
