"""Files that are whole or absent: also after a power cut, by the clock of their folder."""

import os
import stat
import time
from types import SimpleNamespace

import pytest

from sk_momkd.io import atomic
from sk_momkd.io.atomic import atomic_folder, atomic_set, atomic_write, create_file, sweep_parts
from sk_momkd.io.claims import claimed, is_claimed


def write(path):
    with atomic_write(path) as part, open(part, "w") as file:
        file.write("new")


def write_set(path):
    with atomic_set([path, path.with_name("other")]) as parts:
        for part in parts:
            with open(part, "w") as file:
                file.write("new")


def write_folder(path):
    with atomic_folder(path) as folder:
        for name in ("a", "b"):
            (folder / name).write_text("new")


WRITERS = {
    "file": (write, 1),
    "set": (write_set, 2),
    "folder": (write_folder, 2),
    "created": (lambda path: create_file(path, b"new"), 1),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_content_is_on_the_disk_before_its_name_is(kind, tmp_path, monkeypatch):
    done, plain = [], {name: getattr(os, name) for name in ("fsync", "replace", "rename", "link")}

    def noted(name):
        def call(*args):
            content = os.pread(args[0], 9, 0) if name == "fsync" else b""
            done.append((name == "fsync", content))
            return plain[name](*args)

        return call

    for name in plain:
        monkeypatch.setattr(os, name, noted(name))
    call, n_files = WRITERS[kind]
    call(tmp_path / "written")
    is_sync = [synced for synced, _ in done]
    assert is_sync == sorted(is_sync, reverse=True)
    assert [content for synced, content in done if synced] == [b"new"] * n_files
    assert False in is_sync


@pytest.mark.parametrize("kind", WRITERS)
def test_rights_are_those_of_any_new_file(kind, tmp_path):
    before = os.umask(0o027)
    try:
        WRITERS[kind][0](tmp_path / "written")
        (tmp_path / "plain").touch()
        (tmp_path / "plain_folder").mkdir()
    finally:
        os.umask(before)
    plain = tmp_path / ("plain_folder" if kind == "folder" else "plain")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "written", plain)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("hours", [-2, 2])
def test_ages_are_told_by_the_clock_of_the_folder(hours, tmp_path, monkeypatch):
    """As on a network disk whose server has another time."""
    plain = os.fstat

    def of_server(handle):
        found = plain(handle)
        known = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        return SimpleNamespace(**known | {"st_mtime": found.st_mtime + hours * 3600})

    monkeypatch.setattr(os, "fstat", of_server)
    assert abs(atomic.time_in(tmp_path) - time.time() - hours * 3600) < 60
    work, part = tmp_path / "work", tmp_path / ".sk_momkd-1.part"
    part.touch()
    with claimed(work, 600) as mine:
        assert mine
        (tmp_path / "work.claim1").write_text("{}")  # of another machine
        assert is_claimed(work, 600)
        assert sweep_parts(tmp_path, shared=True) == 0
        for path in (part, tmp_path / "work.claim1"):
            os.utime(path, (time.time() - 1000,) * 2)
        assert not is_claimed(work, 600)
        assert sweep_parts(tmp_path, shared=True) == 1


def test_clock_of_a_folder_is_read_again_after_a_minute(tmp_path, monkeypatch):
    first = atomic.time_in(tmp_path)
    now = time.monotonic()
    monkeypatch.setattr(atomic.time, "monotonic", lambda: now + 3600)  # asleep meanwhile
    assert atomic.time_in(tmp_path) - first < 600
