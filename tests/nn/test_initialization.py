"""Initial weights from a generator."""

import pytest
import torch
from torch import nn

from sk_momkd.nn.initialization import initialise_normal


def test_normal_weights_have_variance_one_over_fan_in():
    module = nn.Sequential(nn.Linear(400, 100), nn.Linear(100, 1, bias=False))
    initialise_normal(module, torch.Generator().manual_seed(0))
    assert module[0].weight.std().item() == pytest.approx(0.05, rel=0.02)
    assert not module[0].bias.any()
