"""Small files are read once, and again when they are other files."""

import os
import time

import numpy as np
import pytest

from sk_momkd import read_bags
from sk_momkd.data.arrays import BagArrays
from sk_momkd.io.recent_files import RecentFiles


class Reads:
    """Reads a file of float64 numbers, and counts."""

    def __init__(self, path, may_be_kept=True):
        self.path, self.may_be_kept, self.n = path, may_be_kept, 0

    def __call__(self):
        self.n += 1
        return BagArrays(np.fromfile(self.path).reshape(-1, 1), None, None), self.may_be_kept


def settled(monkeypatch, seconds=60):
    """Let some seconds pass."""
    later = time.time_ns() + seconds * 10**9
    monkeypatch.setattr("sk_momkd.io.stored_copy.time.time_ns", lambda: later)


@pytest.fixture
def path(tmp_path):
    np.arange(3.0).tofile(tmp_path / "a")
    return str(tmp_path / "a")


def test_recent_files_unchanged_file_is_read_once_and_given_out_as_a_copy(path, monkeypatch):
    settled(monkeypatch)
    reads, recent = Reads(path), RecentFiles()
    first = recent.read("a", [path], reads)
    first.features[:] = -1  # the caller's own
    second = recent.read("a", [path], reads)
    second.features[:] = -2
    assert reads.n == 1
    assert recent.read("a", [path], reads).features.ravel().tolist() == [0, 1, 2]


def test_recent_files_replaced_file_is_read_again_even_with_its_old_time(path, monkeypatch):
    settled(monkeypatch)
    reads, recent = Reads(path), RecentFiles()
    recent.read("a", [path], reads)
    before = os.stat(path)
    np.arange(3.0, 6.0).tofile(path + ".new")
    os.replace(path + ".new", path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert recent.read("a", [path], reads).features.ravel().tolist() == [3, 4, 5]


def test_recent_files_new_large_or_reported_content_is_not_kept(path, monkeypatch):
    reads, recent = Reads(path), RecentFiles()
    recent.read("a", [path], reads)  # written just now
    settled(monkeypatch)
    tight, reported = RecentFiles(max_file=23), Reads(path, may_be_kept=False)
    for _ in range(2):
        tight.read("a", [path], reads)
        recent.read("b", [path], reported)
    assert (reads.n, reported.n) == (3, 2)


def test_recent_files_oldest_are_dropped_beyond_the_limit(tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        np.arange(3.0).tofile(path)
    settled(monkeypatch)
    recent, reads = RecentFiles(max_total=50), [Reads(path) for path in paths]  # two of 24 bytes
    for i in (0, 1, 0, 2, 0, 1):
        recent.read(i, [paths[i]], reads[i])
    assert [read.n for read in reads] == [1, 2, 1]


def test_recent_files_content_beyond_the_limit_displaces_no_other(path, tmp_path, monkeypatch):
    np.arange(9.0).tofile(tmp_path / "large")
    settled(monkeypatch)
    recent, small, large = RecentFiles(max_total=50), Reads(path), Reads(str(tmp_path / "large"))
    for key, reads in (("a", small), ("large", large), ("large", large), ("a", small)):
        recent.read(key, [reads.path], reads)
    assert (small.n, large.n) == (1, 2)


def test_recent_files_asks_for_the_state_of_a_file_once_per_read(path, monkeypatch):
    settled(monkeypatch)
    reads, recent, plain, asked = Reads(path), RecentFiles(), os.stat, []
    recent.read("a", [path], reads)
    monkeypatch.setattr(os, "stat", lambda file: [asked.append(file), plain(file)][1])
    recent.read("a", [path], reads)
    assert asked == [path]


def test_read_bags_small_file_is_opened_once(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    settled(monkeypatch)
    (bag,) = read_bags(tmp_path)
    first = bag.features
    monkeypatch.setattr("sk_momkd.io.readers.SlideFile.opened", None)
    np.testing.assert_array_equal(bag.features, first)
    np.testing.assert_array_equal(read_bags(tmp_path)[0].features, first)
