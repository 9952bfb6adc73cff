"""Atomic writing: a file is complete or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _umask() -> int:
    """Umask of the process, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def atomic_write(path: Path) -> Iterator[str]:
    """Yield the name of a file beside `path`, which is moved to `path` if nothing is raised."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield part
        os.chmod(part, 0o666 & ~_umask())  # mkstemp gives rights to the owner alone
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
