"""Atomic writing: a file is complete or absent, and a set of files is known to be complete."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
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
_ORPHAN_AGE = 24 * 3600  # seconds, where a file system has no locks
_SHARED_ORPHAN_AGE = 600  # where it has, of a folder that machines share
_UMASK = threading.Lock()
_CLOCKS: dict[Path, float] = {}  # of the file systems of folders, minus that of this process


def _umask() -> int:
    """Umask of the process, which can only be read by setting it, by one thread at a time."""
    with _UMASK:
        mask = os.umask(0o022)
        os.umask(mask)
    return mask


def time_in(folder: Path) -> float:
    """Time by the clock of the file system of a folder, which all machines compare with."""
    if folder not in _CLOCKS:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"now")
            file.flush()
            os.fsync(file.fileno())
            _CLOCKS[folder] = os.fstat(file.fileno()).st_mtime - time.monotonic()
    return _CLOCKS[folder] + time.monotonic()


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


@contextmanager
def _part_of(path: Path, *, locked: bool = True) -> Iterator[str]:
    """A new file beside `path`, locked by this process, which is removed in the end."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    handle, part = tempfile.mkstemp(_SUFFIX, _PREFIX, dir=path.parent)
    try:
        if not locked or not _lock(handle):
            os.close(handle)
            handle = -1
        yield part
    finally:
        Path(part).unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def _move(part: str, path: Path) -> None:
    os.chmod(part, 0o666 & ~_umask())  # mkstemp gives rights to the owner alone
    os.replace(part, path)


@contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[str]:
    """Yield the name of a file beside `path`, which is moved to `path` if nothing is raised.

    With `sync` its content is on the disk before it is moved, so that it is whole after a power
    cut, too.
    """
    with _part_of(path) as part:
        yield part
        if sync:
            with open(part, "r+b") as file:
                os.fsync(file.fileno())
        _move(part, path)


def create_file(path: Path, content: bytes) -> None:
    """Create a file with its content at once, where none is.

    Raises
    ------
    FileExistsError
        If there is one.
    """
    with _part_of(path) as part:
        Path(part).write_bytes(content)
        os.chmod(part, 0o666 & ~_umask())
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
        mark = paths[0].parent / UNFINISHED
        was_unfinished, n_moved = mark.exists(), 0
        mark.touch()
        try:
            for part, path in zip(parts, paths, strict=True):
                _move(part, path)
                n_moved += 1
        finally:
            if n_moved == len(paths) or (n_moved == 0 and not was_unfinished):
                mark.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, which takes its place if nothing is raised.

    A folder that is there is moved aside before and removed after; it is put back if that fails.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    new = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, dir=path.parent))
    old = new.with_name(f"{new.name}-old")
    try:
        yield new
        os.chmod(new, 0o777 & ~_umask())
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
