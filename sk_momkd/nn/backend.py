"""Choice between the implementations of the graph encoder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor, nn

from .blocks import Blocks

BACKENDS = ("auto", "numba", "torch", "torch_compile")
_COMPILED_TYPES = (torch.float32, torch.bfloat16)
_FEW = 1024  # patches; of more, the operations of torch gain by their threads


@cache
def numba_version() -> str | None:
    """Version of numba, or None if it is not installed or NUMBA_DISABLE_JIT is set."""
    try:
        import numba
    except ImportError:
        return None
    disabled = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
    return None if disabled else numba.__version__


def choose_backend(backend: str, x: Tensor | Blocks) -> str:
    """Implementation for features `x`; "auto" is "numba" if it supports them, else "torch".

    Raises
    ------
    ValueError
        If `backend` is unknown.
    RuntimeError
        If `backend` is "numba" and numba does not support the features.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}.")
    if backend.startswith("torch"):
        return backend
    why_not = _why_not_numba(x)
    if backend == "numba" and why_not:
        raise RuntimeError(f"backend='numba' cannot be used: {why_not} Use backend='auto'.")
    return "torch" if why_not else "numba"


def are_few(x: Tensor, backend: str, *parts: nn.Module | None) -> bool:
    """Whether the compiled loops of `sk_momkd.nn.few` suit training on the rows of `x` (n, d).

    They are in float32, also where `x` is in bfloat16, hence not under autocast. They read the
    weights of `parts` and call none of them, which a user would see who has hooks or
    parametrizations there.
    """
    fits = len(x) <= _FEW and x.dtype in _COMPILED_TYPES and torch.is_grad_enabled()
    if not fits or torch.is_autocast_enabled("cpu") or choose_backend(backend, x) != "numba":
        return False
    return _are_plain(parts)


def _are_plain(parts: Iterable[nn.Module | None]) -> bool:
    """Whether these modules and all inside have no hooks and no parametrizations.

    It is asked in each step, so that it takes as few operations as can be.
    """
    left = list(parts)
    while left:
        if (part := left.pop()) is None:
            continue
        own = part.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "parametrizations" in own["_modules"]
        ):
            return False
        left.extend(own["_modules"].values())
    return True


def _why_not_numba(x: Tensor | Blocks) -> str:
    if x.device.type != "cpu":
        return f"it runs on the CPU, the data are on {x.device}."
    if x.dtype not in _COMPILED_TYPES:
        return f"it supports float32 and bfloat16, the data are {x.dtype}."
    if numba_version() is None:  # last, because it imports numba
        return "numba is not installed, or NUMBA_DISABLE_JIT is set."
    return ""
