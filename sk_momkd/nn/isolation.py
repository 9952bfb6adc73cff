"""One guard around training and prediction against the global state of torch and NumPy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

_LOCK = threading.RLock()


class _SharedDefaults:
    """Defaults of the whole process, which are changed while any thread is inside the guard."""

    def __init__(self) -> None:
        self.n_inside = 0
        self.dtype = torch.float32

    def enter(self) -> None:
        """Store what the caller has set when the first thread comes in."""
        with _LOCK:
            if self.n_inside == 0:
                self.dtype = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.n_inside += 1

    def leave(self) -> None:
        """Restore it when the last thread goes out."""
        with _LOCK:
            self.n_inside -= 1
            if self.n_inside == 0:
                torch.set_default_dtype(self.dtype)


_DEFAULTS = _SharedDefaults()


@contextmanager
def isolated() -> Iterator[None]:
    """Run with torch and NumPy in their initial state, whatever the caller has set.

    That is: gradients on, no inference mode, no autocast, default type float32, default device
    CPU, floating-point errors as NumPy ships them. What the caller has set is restored at the end.
    Whether torch uses deterministic algorithms stays the caller's choice.
    """
    _DEFAULTS.enter()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(mode=False))
            stack.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(np.errstate(all="warn", under="ignore"))
            yield
    finally:
        _DEFAULTS.leave()


@contextmanager
def own_torch_random_state() -> Iterator[None]:
    """Keep draws of torch's global generator from the caller; one thread at a time.

    Without the lock, a thread could restore a state that another one has drawn from.
    """
    with _LOCK, torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def own_numpy_random_state() -> Iterator[None]:
    """Keep draws and seeds of NumPy's global generator from the caller; one thread at a time."""
    with _LOCK:
        state = np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
