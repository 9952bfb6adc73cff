"""Primitives of the compiled loops."""

import numpy as np
import pytest
import torch

from sk_momkd.nn.backend import numba_version
from sk_momkd.nn.dropout import counter_bits


@pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")
def test_counter_bits_kernel_and_torch_agree():
    from numba import njit

    from sk_momkd.nn.kernels import primitives

    @njit
    def fill(out, key):
        for i in range(out.size):
            out[i] = primitives.counter_bits(i, key)

    out = np.empty(1000, dtype=np.uint32)
    fill(out, np.array([77, 2**32 - 1], dtype=np.uint32))
    assert out.tolist() == counter_bits(torch.arange(1000), (77, 2**32 - 1)).tolist()


@pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")
def test_kernels_where_nothing_can_be_cached_still_compile(monkeypatch):
    from sk_momkd.nn.kernels import primitives

    real = primitives.njit

    def without_a_place(*args, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(primitives, "njit", without_a_place)
    assert primitives.jit(lambda x: x + 1)(2) == 3
