"""The contiguous copy equals the file, follows its changes and survives damage."""

import errno
import os
import shutil
import stat
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from operator import attrgetter

import h5py
import numpy as np
import pytest
import torch

from sk_momkd import Bag, BagSequence, cache_bags, patient_bags, read_bags
from sk_momkd.exceptions import BagError, BagFileError, CacheWarning
from sk_momkd.io import cache, stored_copy
from sk_momkd.io.atomic import atomic_write
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
    monkeypatch.setattr(stored_copy, "AT_REST", -(10**12))


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
    stored = stored_copy.as_float32(stored_copy.to_bfloat16(values), "bfloat16")
    expected = rounded(values, "bfloat16")
    np.testing.assert_array_equal(stored.view(np.uint32), expected.view(np.uint32))


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
    sizes = {path.suffixes[-3]: path.stat().st_size for path in folder.glob("*.bag")}
    assert sizes[".bfloat16"] - sizes[".float16"] in range(-9, 9)
    assert sizes[".float32"] - sizes[".float16"] in range(790, 810)


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
    with h5py.File(path, "a") as file:
        file["features"][:] = X + 1
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # until the clock of the file system ticks
        os.utime(path, ns=(1, 1))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, 1)
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
    assert not list((tmp_path / "cache").glob("*.bag"))


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
    assert sorted(suffixes) == [".bag", ".digest"]


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
    assert len(list((tmp_path / "cache").glob("*.bag"))) == 1  # both files have one content


def test_cached_bag_keeps_what_the_bag_was_given(bags, tmp_path):
    n = bags[0].n_instances
    given = Bag(
        bags[0].source,
        np.full((n, 2), 9),
        edge_index=[[0], [1]],
        bag_id="S1.h5",
        patient_id="P",
        allow_constant=True,
    )
    cached = cache_bags(BagSequence([given]), tmp_path / "cache", dtype="float32")[0]
    assert (cached.coords == 9).all()
    assert cached.edge_index.tolist() == [[0], [1]]
    assert cached.given_ids == ("S1.h5", "P")
    assert cached._may_be_constant(n)


def test_copy_of_lost_chunks_is_for_those_who_allow_them(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "S1.zarr", shape=(50, 8), chunks=(10, 8), dtype="f4")
    array[10:] = X[10:]
    allowed = read_bags(tmp_path / "S1.zarr", allow_constant=True)
    copy = cache_bags(allowed, tmp_path / "cache", dtype="float32")[0].features
    np.testing.assert_array_equal(copy[10:], X[10:])
    with pytest.raises(BagFileError, match="lacks 1 of 5 chunks"):
        cache_bags(read_bags(tmp_path / "S1.zarr"), tmp_path / "cache", dtype="float32")[0].load()


def test_cache_folder_that_cannot_be_made_or_vanishes(bags, tmp_path):
    with pytest.raises(BagFileError, match="cannot be a folder of copies"):
        cache_bags(bags, tmp_path / "S1.h5")
    cached = cache_bags(bags, tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    assert cached[0].load().features.shape == bags[0].shape
    (tmp_path / "cache").rename(tmp_path / "gone")
    (tmp_path / "cache").touch()
    with pytest.warns(CacheWarning, match=r"cannot be written.*read from their own files"):
        np.testing.assert_array_equal(cached[0].features, rounded(X, "float16"))


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has verified nothing yet."""

    def forget():
        stored_copy._VERIFIED.clear()
        cache._IDENTITIES.clear()
        cache._DIGESTS.clear()
        cache._WARNED.clear()

    forget()
    return forget


def copies_of(folder):
    return sorted(folder.glob("*.bag"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_any_flipped_bit_of_a_copy_is_noticed(bags, tmp_path, fresh, dtype):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype=dtype)
    expected = bag.features
    (path,) = copies_of(tmp_path / "cache")
    sound = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(sound), size=30):
        content = bytearray(sound)
        content[place] ^= 1
        path.write_bytes(content)
        fresh()
        np.testing.assert_array_equal(bag.features, expected)


def two_slides(folder):
    for i in (1, 2):
        with h5py.File(folder / f"S{i}.h5", "w") as file:
            file["features"] = X + i
    return read_bags([folder / "S1.h5", folder / "S2.h5"])


def test_exchanged_copies_and_forged_notes_are_noticed(tmp_path, at_rest, fresh):
    bags = cache_bags(two_slides(tmp_path), tmp_path / "cache", dtype="float32")
    for bag in bags:
        bag.load()
    one, two = copies_of(tmp_path / "cache")
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1]), two.write_bytes(content[0])
    fresh()
    assert [bag.features[0, 0] - X[0, 0] for bag in bags] == pytest.approx([1, 2])
    notes = list((tmp_path / "cache").glob("*.digest"))
    digests = [note.read_text().split()[0] for note in notes]
    for note, digest in zip(notes, digests[::-1], strict=True):
        note.write_text(cache._noted(digest, note.stem))
    fresh()
    assert [bag.features[0, 0] - X[0, 0] for bag in bags] == pytest.approx([1, 2])


def test_copy_of_an_older_schema_is_not_read(bags, tmp_path, monkeypatch):
    (bag,) = cache_bags(bags, tmp_path / "cache")
    bag.load()
    monkeypatch.setattr(cache, "_SCHEMA", cache._SCHEMA + 1)
    bag.load()
    assert len(copies_of(tmp_path / "cache")) == 2


def test_copy_that_is_truncated_while_it_is_read_does_not_kill(bags, tmp_path):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    (path,) = copies_of(tmp_path / "cache")

    def read_while_it_is_truncated():
        with bag.opened(10) as opened:
            os.truncate(path, 1000)
            list(opened.read())

    with pytest.raises(BagFileError, match="is truncated"):
        read_while_it_is_truncated()
    np.testing.assert_array_equal(bag.features, X)


def full_disk(*args, **options):
    raise OSError(28, "No space left on device")


def test_full_or_read_only_folder_is_told_once_and_the_file_is_read(
    bags, tmp_path, monkeypatch, fresh
):
    monkeypatch.setattr("sk_momkd.io.atomic._create", full_disk)
    (bag,) = cache_bags(bags, tmp_path / "cache")
    with pytest.warns(CacheWarning, match="No space left on device") as told:
        read = [bag.features for _ in range(3)]
    assert len(told) == 1
    assert all(np.array_equal(features, rounded(X, "float16")) for features in read)
    monkeypatch.setattr("os.makedirs", full_disk)
    fresh()
    with pytest.warns(CacheWarning, match="No space left"):
        cache_bags(bags, tmp_path / "other")


def test_copies_in_a_folder_that_cannot_be_written_are_read(
    bags, tmp_path, monkeypatch, fresh, at_rest, hashed
):
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    (tmp_path / "S1.h5").chmod(0o600)  # another time of change, so another note
    monkeypatch.setattr("sk_momkd.io.atomic._create", full_disk)
    monkeypatch.setattr(SlideFile, "read", lambda self: pytest.fail("the source was read"))
    with pytest.warns(CacheWarning):
        np.testing.assert_array_equal(bag.features, X)
    n_hashed = len(hashed)
    np.testing.assert_array_equal(bag.features, X)
    assert len(hashed) == n_hashed


def test_parts_of_killed_writers_are_swept_and_those_of_living_stay(bags, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".sk_momkd-killed.part").write_bytes(b"half")
    (folder / "download.part").write_bytes(b"of another program")
    with atomic_write(folder / "file") as living:
        cache_bags(bags, folder)
        names = {path.name for path in folder.iterdir()}
        assert names == {os.path.basename(living), "download.part"}


def test_float16_tells_what_it_flushes_to_zero(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["features"] = np.where(np.arange(8) < 4, 1e-9, X).astype(np.float32)
    bags = read_bags(tmp_path)
    with pytest.warns(CacheWarning, match=r"S1\.h5: 50\.00% .* too small for float16.*1e-09"):
        cache_bags(bags, tmp_path / "cache")[0].load()
    assert (cache_bags(bags, tmp_path / "cache", dtype="bfloat16")[0].features != 0).all()


def test_drive_that_was_mounted_again_keeps_its_notes(bags, tmp_path, at_rest, hashed, monkeypatch):
    cache_bags(bags, tmp_path / "cache")[0].load()
    plain = os.stat

    def on_another_device(*args, **options):
        found = plain(*args, **options)
        changed = [*found]
        changed[stat.ST_DEV] += 1
        return os.stat_result(changed, found.__reduce__()[1][1])

    monkeypatch.setattr(os, "stat", on_another_device)
    cache_bags(bags, tmp_path / "cache")[0].load()
    assert len(hashed) == 1


def test_copy_of_content_elsewhere_is_read_without_the_sources(tmp_path, at_rest, monkeypatch):
    (tmp_path / "bags").mkdir()
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["features"] = X
    with h5py.File(tmp_path / "bags" / "S1.h5", "w") as file:
        file["features"] = h5py.ExternalLink("../source.h5", "features")
    bags = read_bags(tmp_path / "bags", allow_external=True)
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    bag.load()
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", None)
        np.testing.assert_array_equal(bag.pinned().features, X)
    with h5py.File(tmp_path / "source.h5", "a") as file:
        file["features"][:] = X + 1
    np.testing.assert_array_equal(bag.features, X + 1)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = X + 2
    with h5py.File(tmp_path / "bags" / "S1.h5", "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("../other.h5", "features")
    np.testing.assert_array_equal(bag.features, X + 2)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_source_is_read_where_nothing_can_be_written(bags, tmp_path, monkeypatch, fresh, code):
    def refuse(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("sk_momkd.io.atomic._create", refuse)

    def read_twice():
        return [cache_bags(bags, tmp_path / "cache", dtype="float32")[0].features for _ in "ab"]

    with pytest.warns(CacheWarning, match=os.strerror(code)) as told:
        found = read_twice()
    np.testing.assert_array_equal(found, [X, X])
    assert len(told) == 1


def test_file_system_without_locks_is_read_and_written(bags, tmp_path, monkeypatch):
    plain = h5py.File

    def without_locks(*args, locking=None, **options):
        if locking is not False:
            raise OSError(errno.ENOLCK, "unable to lock file, errno = 37, 'No locks available'")
        return plain(*args, locking=locking, **options)

    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(h5py, "File", without_locks)
    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / "cache").mkdir()
    young, old = (tmp_path / "cache" / f".sk_momkd-{name}.part" for name in ("young", "old"))
    young.touch(), old.touch()
    os.utime(old, (1, 1))
    (bag,) = cache_bags(bags, tmp_path / "cache", dtype="float32")
    np.testing.assert_array_equal(bag.features, X)
    assert copies_of(tmp_path / "cache")
    assert (young.exists(), old.exists()) == (True, False)
