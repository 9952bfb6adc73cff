"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[str]:
    """Name of a file to write beside `path`; it is moved there if nothing is raised."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield part
        os.chmod(part, 0o666 & ~_umask())  # mkstemp's files are for nobody else to read
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def _umask() -> int:
    """What the process takes away from the rights of new files; it can only be read by setting."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
