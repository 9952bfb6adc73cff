"""The choice between numba and torch."""

import pytest
import torch

from sk_momkd.nn.backend import choose_backend, numba_version


def test_choose_backend_error_explains_why_numba_is_not_used(monkeypatch):
    assert choose_backend("auto", torch.ones(1, dtype=torch.float64)) == "torch"
    if numba_version() is not None:
        with pytest.raises(RuntimeError, match=r"float32 and bfloat16.*float64"):
            choose_backend("numba", torch.ones(1, dtype=torch.float64))
    monkeypatch.setattr("sk_momkd.nn.backend.numba_version", lambda: None)
    assert choose_backend("auto", torch.ones(1)) == "torch"
    with pytest.raises(RuntimeError, match="not installed"):
        choose_backend("numba", torch.ones(1))
    with pytest.raises(ValueError, match="backend must be one of"):
        choose_backend("fast", torch.ones(1))
