"""Compiled kernels on as many threads as torch uses."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MIN_ROWS = 256  # per piece of work


def over_rows(
    kernel: Callable[..., None],
    n_rows: int,
    *arrays: Any,
    sum_shapes: Sequence[tuple[int, ...]] = (),
) -> list[Tensor]:
    """Run a kernel on all rows, in pieces that are distributed over the threads.

    Parameters
    ----------
    kernel : callable
        Called as ``kernel((first, last), *arrays, *sums)`` on pieces of the rows.
    n_rows : int
    *arrays
    sum_shapes : sequence of shapes
        Of the sums over rows that the kernel writes.

    Returns
    -------
    list of Tensor
        The sums. Each piece has its own, which are added in order, so that the result does not
        depend on the number of threads.
    """
    if n_rows <= _MIN_ROWS:
        sizes = [math.prod(shape) for shape in sum_shapes]
        parts = torch.empty(sum(sizes)).split_with_sizes(sizes) if sizes else ()
        whole = [part.view(shape) for part, shape in zip(parts, sum_shapes, strict=True)]
        kernel((0, n_rows), *arrays, *[part.numpy() for part in whole])
        return whole
    size = max(_MIN_ROWS, -(-n_rows // 64))
    pieces = [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
    sums = [np.empty((len(pieces), *shape), dtype=np.float32) for shape in sum_shapes]
    _run_pieces(pieces, lambda k, rows: kernel(rows, *arrays, *[part[k] for part in sums]))
    return [torch.from_numpy(part.sum(axis=0)) for part in sums]


def _run_pieces(
    pieces: list[tuple[int, int]], work: Callable[[int, tuple[int, int]], None]
) -> None:
    queue = iter(list(enumerate(pieces)))  # threads may call next() on it at once
    done: list[int] = []
    stopped: list[KeyboardInterrupt] = []

    def drain() -> None:
        try:
            for k, rows in queue:
                work(k, rows)
                done.append(k)
        except KeyboardInterrupt as stop:  # OpenMP would swallow it
            stopped.append(stop)

    n_threads = min(torch.get_num_threads(), len(pieces))
    if n_threads == 1:
        drain()
    elif (openmp := _openmp()) is not None:
        # Always the full team: OpenMP ends threads that a smaller team leaves out.
        openmp.GOMP_parallel(_Body(lambda _: drain()), None, torch.get_num_threads(), 0)
    else:
        others = [_pool().submit(drain) for _ in range(n_threads - 1)]
        drain()
        for other in others:
            other.result()
    if stopped:
        raise stopped[0]
    if len(done) < len(pieces):  # Python prints what happens inside threads of OpenMP
        raise RuntimeError("A compiled kernel failed; see the message above.")


_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> ctypes.CDLL | None:
    """GNU OpenMP, if torch has loaded it.

    After a call of torch its threads wait actively for milliseconds. Other threads would have to
    share the cores with them, so the kernels run in the same threads.
    """
    try:
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        library.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
    except (OSError, AttributeError):  # another system or another OpenMP
        return None
    return library


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sk_momkd")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
