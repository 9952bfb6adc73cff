"""The moving average of a network."""

import pytest
import torch
from torch import nn

from sk_momkd.nn.moving_average import MovingAverage


def test_moving_average_copies_first_and_then_lags():
    net = nn.Linear(1, 1)
    average = MovingAverage(net, 0.6)
    weight = average.net.weight
    for value, expected in ((4.0, 4.0), (0.0, 2.0), (5.0, 0.6 * 2 + 0.4 * 5)):
        with torch.no_grad():
            net.weight.fill_(value)
        average.update(net)
        assert weight.item() == pytest.approx(expected)
    assert not average(torch.ones(1, 1)).requires_grad
    assert not weight.requires_grad
