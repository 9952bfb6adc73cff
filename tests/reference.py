"""Deterministic fill of parameters, so that stored logits test a model without its weights."""

import math

import numpy as np
import torch


def hash_values(n, k):
    """H(i, k) for i = 0 .. n - 1, in [-1, 1]."""
    i = np.arange(n, dtype=np.int64)
    h = ((2 * k + 1) * 31 * i * i + (k + 3) * 1009 * i + 4253 * k * k + 7) % 65521
    return 2 * h / 65521 - 1


def filled(shape, k, scale, dtype=torch.float32):
    """Tensor whose element i in C order is ``scale * H(i, k)``."""
    return torch.tensor(scale * hash_values(math.prod(shape), k).reshape(shape), dtype=dtype)


@torch.no_grad()
def fill_role(parameter, k, gain=False):
    """Fill one parameter by its role `k`; `gain` marks the gain of a layer norm."""
    shape = tuple(parameter.shape)
    if parameter.dim() >= 2:
        parameter.copy_(filled(shape, k, 1 / math.sqrt(math.prod(shape[1:])), parameter.dtype))
    else:
        parameter.copy_(filled(shape, k, 0.1, parameter.dtype) + (1 if gain else 0))
