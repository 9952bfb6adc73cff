"""Which implementation of the graph encoder runs."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .blocks import Blocks

BACKENDS = ("auto", "numba", "torch")
_COMPILED_TYPES = (torch.float32, torch.bfloat16)


@cache
def numba_version() -> str | None:
    """Version of numba, None where it is absent or told not to compile."""
    try:
        import numba
    except ImportError:
        return None
    disabled = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
    return None if disabled else numba.__version__


def choose_backend(backend: str, x: Tensor | Blocks) -> str:
    """Return "numba" or "torch" for features like `x`; "auto" takes numba where it can.

    Raises
    ------
    ValueError
        If `backend` is unknown.
    RuntimeError
        If numba is asked for and cannot serve.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}.")
    why_not = _why_not_numba(x)
    if backend == "numba" and why_not:
        raise RuntimeError(f"backend='numba' cannot be used: {why_not} Use backend='auto'.")
    return "torch" if backend == "torch" or why_not else "numba"


def _why_not_numba(x: Tensor | Blocks) -> str:
    if numba_version() is None:
        return "numba is not installed, or NUMBA_DISABLE_JIT is set."
    if x.device.type != "cpu":
        return f"it runs on the CPU, the data are on {x.device}."
    if x.dtype not in _COMPILED_TYPES:
        return f"it knows float32 and bfloat16, the data are {x.dtype}."
    return ""
