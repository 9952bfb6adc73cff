"""Bags one at a time: splitting a batch and pooling it."""

import pytest
import torch
from mil_models import close, features

from sk_momkd.nn.segment import segment_pool, segment_split, segment_sum


@pytest.mark.parametrize("sizes", [[3], [1, 4, 2]])
def test_split_and_pool_equal_a_loop(sizes):
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x, weights = features(sum(sizes)), features(sum(sizes), 2, seed=2)
    assert [len(part) for part in segment_split(x, index, len(sizes))] == sizes
    pooled = segment_pool(weights, x, index, len(sizes))
    for j in range(2):
        close(pooled[:, j], segment_sum(weights[:, j : j + 1] * x, index, len(sizes)), 1e-12)
