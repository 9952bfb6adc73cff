"""Views of slides and the slow copy of a network."""

import pytest
import torch
from torch import nn, tensor

from sk_momkd.nn.distillation import MovingAverage
from sk_momkd.nn.patch_subsampling import RandomView, highest, highest_in_bags
from sk_momkd.nn.segment import paired_instances


def test_view_takes_its_share_of_every_bag_in_order():
    view = RandomView(0.8).train()
    view.generator = torch.Generator().manual_seed(0)
    batch = torch.arange(3).repeat_interleave(tensor([1, 10, 4]))
    x = torch.arange(15.0).unsqueeze(1)
    seen, seen_batch = view(x, batch, 3)
    assert torch.bincount(seen_batch).tolist() == [1, 8, 4]
    assert seen.squeeze(1).diff().min() > 0
    assert torch.equal(batch[seen.squeeze(1).long()], seen_batch)
    again, _ = view(x, batch, 3)
    assert not torch.equal(again, seen)
    assert view.eval()(x, batch, 3)[0] is x


def test_highest_marks_a_share_and_at_least_one():
    values = tensor([3.0, -1.0, 2.0, 5.0, 4.0])
    marked = highest_in_bags(values, tensor([0, 0, 1, 1, 1]), 2, 0.7)
    assert marked.tolist() == [True, False, False, True, True]
    assert highest(values.expand(2, 5), 0.01).sum(dim=1).tolist() == [1, 1]


def test_paired_instances_renumbers_the_bags():
    x, batch = torch.arange(5.0), tensor([0, 1, 1, 2, 2])
    kept, owner = paired_instances(x, batch, tensor([True, False, True]))
    assert kept.tolist() == [0.0, 3.0, 4.0]
    assert owner.tolist() == [0, 1, 1]


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
