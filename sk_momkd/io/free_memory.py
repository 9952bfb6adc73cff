"""Memory that this process may still take: of the machine, and of the group it is limited to."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import psutil

_SHARE = 0.5
_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def bytes_for_features() -> int:
    """Half of the free memory; in a worker process, its part of that among all processors.

    A worker does not know how many there are beside it, so it counts with one on each processor.
    """
    share = _SHARE * free_memory()
    if multiprocessing.parent_process() is not None:
        share /= os.cpu_count() or 1
    return int(share)


def free_memory() -> int:
    """Bytes that are free on the machine and in the control groups (containers, cluster jobs)."""
    return max(0, min([psutil.virtual_memory().available, *_free_in_groups()]))


def _free_in_groups() -> list[int]:
    """Free bytes of each group around this process that has a limit."""
    found = []
    with suppress(OSError):
        for line in _OF_PROCESS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = _CGROUPS / "memory" if controllers else _CGROUPS
            place = root / group.lstrip("/")
            # Inside a container the group's path may be that of the host, and its root is mounted.
            for folder in (place, *place.parents):
                if folder == root or root in folder.parents:
                    found += _free_in(folder, _V1 if controllers else _V2)
    return found


def _free_in(folder: Path, files: tuple[str, str, str]) -> list[int]:
    with suppress(OSError, ValueError):  # no such file, or no limit: "max"
        limit, used = (int((folder / name).read_text()) for name in files[:2])
        # Pages of files that were read count as used, but give way.
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [limit - used + int(stat.get(files[2], 0))]
    return []
