"""Pieces of work in a shared folder, each of which one process of all machines takes.

A claim is a file that is created only where it does not exist, which file systems in the network
guarantee, too; no locks are used, which they do not all have. While the work goes on its time of
change is renewed. A claim whose process has died, as far as this machine can see, or whose time has
not been renewed for long, has expired. Nobody removes it, as it could have been renewed since: the
next process creates the claim with the next number, which only one can. A process thus has the work
while its claim is there and those before it have expired; the last one removes all in the end.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from .atomic import create_file, time_in

_RENEWALS = 6  # of a claim before it would expire
_CLOCK_ERROR = 5.0  # seconds by which two readings of a process's start may differ


@contextmanager
def claimed(work: Path, expires: float) -> Iterator[bool]:
    """Try to take a piece of work; whether it was free.

    Parameters
    ----------
    work : Path
        Beside which the claim is created, such as the file that the work writes.
    expires : float
        Seconds after which a claim that was not renewed has expired. All who share the folder need
        the same.

    Yields
    ------
    bool
        Whether this process has it until the block ends. Otherwise another one has it.
    """
    owner = json.dumps(_this_process() | {"token": secrets.token_hex(8)}).encode()
    number = _take(work, expires, owner)
    if number is None:
        yield False
        return
    done, pause = threading.Event(), min(expires / _RENEWALS, threading.TIMEOUT_MAX)
    renewal = threading.Thread(target=_renew, args=(_claim(work, number), pause, done), daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        done.set()
        renewal.join()
        with suppress(OSError):
            _release(work, number, owner)


def is_claimed(work: Path, expires: float) -> bool:
    """Whether some process has a piece of work now."""
    number = 1
    while (expired := _has_expired(_claim(work, number), expires)) is not None:
        if not expired:
            return True
        number += 1
    return False


def _claim(work: Path, number: int) -> Path:
    return work.with_name(f"{work.name}.claim{number}")


def _take(work: Path, expires: float, owner: bytes) -> int | None:
    """Number of the claim that was created; None where another process has the work."""
    number = 1
    while True:
        path = _claim(work, number)
        try:
            create_file(path, owner, sync=False)
        except FileExistsError:
            expired = _has_expired(path, expires)
            if expired is False:
                return None
            number = number + 1 if expired else 1  # one that vanished: its work has ended
            continue
        if all(_has_expired(_claim(work, before), expires) for before in range(1, number)):
            return number
        path.unlink(missing_ok=True)  # those before were removed since, and may be taken again
        number = 1


def _release(work: Path, number: int, owner: bytes) -> None:
    """Remove all claims, unless another process found the own one expired and has the work now."""
    if _claim(work, number).read_bytes() != owner:
        return
    last = number
    try:
        # So that nobody takes the work meanwhile.
        create_file(_claim(work, number + 1), owner, sync=False)
        last += 1
    except FileExistsError:
        return
    except OSError:  # a full disk
        if os.path.lexists(_claim(work, number + 1)):
            return
    for passed in range(1, last + 1):  # the own ones last: until then nobody takes them
        _claim(work, passed).unlink(missing_ok=True)


def _renew(path: Path, pause: float, done: threading.Event) -> None:
    while not done.wait(pause):
        with suppress(OSError):  # the next one may succeed; without it the claim expires
            os.utime(path)


def _has_expired(path: Path, expires: float) -> bool | None:
    """Whether a claim has expired; None if there is none."""
    try:
        with open(path, "rb") as file:  # opened, so that its state is asked from the server
            renewed = os.fstat(file.fileno()).st_mtime
            owner = _parsed(file.read(10_000))
    except OSError:
        return None if not os.path.lexists(path) else False
    if owner.get("machine") == _machine() and not _is_alive(owner):
        return True
    return time_in(path.parent) - renewed > expires


def _parsed(content: bytes) -> dict[str, Any]:
    """Whose claim it is; empty for one that is being written."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _this_process() -> dict[str, Any]:
    return {
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _machine() -> str:
    """Name of the machine, and on Linux its boot and its space of process numbers."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process of a claim, which was made on this machine, still runs."""
    try:
        process = psutil.Process(int(owner["pid"]))
        same = abs(process.create_time() - float(owner["started"])) < _CLOCK_ERROR
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, KeyError, TypeError, ValueError):
        return True  # unknown: its time decides
