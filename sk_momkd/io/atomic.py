"""Atomic writing: a file is complete or absent, and a set of files is known to be complete."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".sk_momkd-", ".part"
UNFINISHED = ".sk_momkd-unfinished"  # is in a folder while the files of a set are moved into it
_MOST_HANDLES = 100
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # raised without a file's name
_ORPHAN_AGE = 24 * 3600  # seconds, where a file system has no locks
_SHARED_ORPHAN_AGE = 600  # where it has, of a folder that machines share
_CLOCK_HOLDS = 60.0  # seconds after which a clock is read again, as machines sleep
_CLOCKS: dict[Path, tuple[float, float]] = {}  # time in a folder, and that of this process then


def time_in(folder: Path) -> float:
    """Time by the clock of the file system of a folder, which all machines compare with."""
    there, here = _CLOCKS.get(folder, (0.0, -_CLOCK_HOLDS))
    if time.monotonic() - here >= _CLOCK_HOLDS:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"now")
            file.flush()
            os.fsync(file.fileno())
            there, here = os.fstat(file.fileno()).st_mtime, time.monotonic()
        _CLOCKS[folder] = there, here
    return there + time.monotonic() - here


def _lock(handle: int) -> bool | None:
    """Lock a part while it is written; False if another holds it, None if there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system in the network, as a rule
        return None
    return True


def _beside(path: Path) -> Path:
    """A new name beside `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    return path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def _create(path: Path) -> int:
    """Handle of a new file, which has the rights of any new file: `tempfile` gives fewer."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


@contextmanager
def _errors_name(path: Path, part: Path) -> Iterator[None]:
    """Let errors of a part name the file that it should become."""
    try:
        yield
    except OSError as error:
        own = error.filename is not None and os.fspath(error.filename) == os.fspath(part)
        if own or (error.filename is None and error.errno in _OF_DISK):
            error.filename, error.filename2 = os.fspath(path), None
        raise


@contextmanager
def _part_of(path: Path, *, locked: bool = True) -> Iterator[str]:
    """A new file beside `path`, locked by this process, which is removed in the end."""
    part = _beside(path)
    with _errors_name(path, part), _removed(part, locked=locked):
        yield os.fspath(part)


@contextmanager
def _removed(part: Path, *, locked: bool) -> Iterator[None]:
    """Create a part, and remove it in the end."""
    handle = _create(part)
    try:
        if not locked or not _lock(handle):
            os.close(handle)
            handle = -1
        yield
    finally:
        part.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def _sync(path: str | Path) -> None:
    """Wait until the content of a file is on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[str]:
    """Yield the name of a file beside `path`, which is moved to `path` if nothing is raised.

    With `sync` its content is on the disk before it is moved, so that it is whole after a power
    cut, too. That takes some milliseconds: leave it out for what can be made again.
    """
    with _part_of(path) as part:
        yield part
        if sync:
            _sync(part)
        os.replace(part, path)


def require_writable(folder: Path) -> None:
    """Make a folder, and raise now, not after hours of work, if no file can be written there.

    Parts that killed processes left in it are removed.

    Raises
    ------
    OSError
        With the name of the folder, or of what lies in its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"now")
            file.flush()
    except OSError as error:
        error.filename = os.fspath(folder)
        raise
    sweep_parts(folder)


def create_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Create a file with its content at once, where none is; `sync` as in `atomic_write`.

    Raises
    ------
    FileExistsError
        If there is one.
    """
    with _part_of(path) as part:
        Path(part).write_bytes(content)
        if sync:
            _sync(part)
        try:
            os.link(part, path)
        except FileExistsError:
            if os.stat(part).st_nlink != 2:  # a server may have linked it, and been asked again
                raise
        except OSError:  # a file system without links
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(content)


@contextmanager
def atomic_set(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Like `atomic_write` for several files of one folder, none of which is moved before all are.

    If the process is killed while they are moved, the folder keeps the file `UNFINISHED`.
    """
    with ExitStack() as stack:
        few = len(paths) < _MOST_HANDLES
        parts = [stack.enter_context(_part_of(path, locked=few)) for path in paths]
        yield parts
        for part in parts:
            _sync(part)
        mark = paths[0].parent / UNFINISHED
        was_unfinished, n_moved = mark.exists(), 0
        mark.touch()
        try:
            for part, path in zip(parts, paths, strict=True):
                os.replace(part, path)
                n_moved += 1
        finally:
            if n_moved == len(paths) or (n_moved == 0 and not was_unfinished):
                mark.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder for files beside `path`, which takes its place if nothing is raised.

    A folder that is there is moved aside before and removed after; it is put back if that fails.
    """
    new = _beside(path)
    old = new.with_name(f"{new.name}-old")
    new.mkdir()
    try:
        yield new
        for file in new.iterdir():
            _sync(file)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def moved_aside(path: Path) -> list[Path]:
    """Folders beside `path` that a killed `atomic_folder` moved aside and did not remove."""
    return sorted(path.parent.glob(f"{_PREFIX}*{_SUFFIX}-old")) if path.parent.is_dir() else []


def _is_orphan(path: Path, shared: bool) -> bool:
    """Whether no process writes a part any more: a killed one has lost its lock."""
    try:
        with open(path, "r+b") as file:
            locked = _lock(file.fileno())
            changed = os.fstat(file.fileno()).st_mtime
        if locked and not shared:
            return True
        oldest = _SHARED_ORPHAN_AGE if locked else _ORPHAN_AGE
        return locked is not False and time_in(path.parent) - changed > oldest
    except OSError:
        return False


def sweep_parts(folder: Path, *, shared: bool = False) -> int:
    """Remove the parts that killed processes left in `folder`; return how many there were.

    Of a folder that machines share they must also be old, as the lock of another machine may not
    be seen.
    """
    orphans = [path for path in folder.glob(f"{_PREFIX}*{_SUFFIX}") if _is_orphan(path, shared)]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)
