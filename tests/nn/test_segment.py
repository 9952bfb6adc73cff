"""Segment sums, means and softmax against loops; dropout and initial weights."""

import pytest
import torch
from mil_models import close, features
from torch import nn

from sk_momkd.nn.dropout import Dropout, set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.segment import (
    paired_instances,
    segment_map,
    segment_mean,
    segment_pool,
    segment_softmax,
    segment_split,
    segment_sum,
)


@pytest.mark.parametrize("index", [[0, 0, 0], [0, 1, 1], [2, 0, 2]])
def test_segments_equal_a_loop(index):
    index = torch.tensor(index)
    n = int(index.max()) + 1
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for s in range(n):
        rows = x[index == s]
        if not len(rows):
            assert segment_sum(x, index, n)[s].abs().sum() == 0
            continue
        torch.testing.assert_close(segment_sum(x, index, n)[s], rows.sum(dim=0))
        torch.testing.assert_close(segment_mean(x, index, n)[s], rows.mean(dim=0))
        torch.testing.assert_close(segment_softmax(x, index, n)[index == s], rows.softmax(dim=0))


def test_map_hands_equal_sizes_over_together_and_keeps_the_order():
    sizes = [2, 3, 2, 600, 1, 600, 2]
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.randn(len(index), 4, generator=torch.Generator().manual_seed(0))
    calls = []

    def together(stack):
        calls.append(tuple(stack.shape[:2]))
        return stack.sum(dim=1), stack[:, :, 0]

    results = segment_map(together, x, index, len(sizes))
    assert calls == [(3, 2), (1, 3), (1, 600), (1, 600), (1, 1)]
    for rows, (total, column) in zip(x.split(sizes), results, strict=True):
        torch.testing.assert_close(total, rows.sum(dim=0))
        torch.testing.assert_close(column, rows[:, 0])


def test_softmax_large_scores_stays_finite():
    scores = torch.tensor([[1e4], [-1e4], [1e4]])
    assert segment_softmax(scores, torch.tensor([0, 0, 1]), 2).squeeze().tolist() == [1, 0, 1]


def test_softmax_gradient_passes_gradcheck():
    scores = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 1, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda s: segment_softmax(s, index, 2), scores)


def test_dropout_keeps_the_mean_and_leaves_eval_alone():
    layer = Dropout(0.25)
    set_dropout_generator(layer, torch.Generator().manual_seed(0))
    x = torch.ones(200, 200)
    dropped = layer.train()(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert layer.eval()(x) is x


def test_initialise_matches_the_distribution_of_torch_and_leaves_global_state():
    module = nn.Sequential(nn.Linear(100, 300), nn.LayerNorm(300))
    bound = module[0].weight.abs().max()
    state = torch.get_rng_state()
    initialise(module, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(module[0].weight.abs().max(), bound, rtol=0.01, atol=0)
    assert module[0].bias.abs().max() <= 0.1
    again = nn.Sequential(nn.Linear(100, 300), nn.LayerNorm(300))
    initialise(again, torch.Generator().manual_seed(0))
    assert torch.equal(again[0].weight, module[0].weight)


@pytest.mark.parametrize("sizes", [[3], [1, 4, 2]])
def test_split_and_pool_equal_a_loop(sizes):
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x, weights = features(sum(sizes)), features(sum(sizes), 2, seed=2)
    assert [len(part) for part in segment_split(x, index, len(sizes))] == sizes
    pooled = segment_pool(weights, x, index, len(sizes))
    for j in range(2):
        close(pooled[:, j], segment_sum(weights[:, j : j + 1] * x, index, len(sizes)), 1e-12)


def test_paired_instances_renumbers_the_bags():
    x, batch = torch.arange(5.0), torch.tensor([0, 1, 1, 2, 2])
    kept, owner = paired_instances(x, batch, torch.tensor([True, False, True]))
    assert kept.tolist() == [0.0, 3.0, 4.0]
    assert owner.tolist() == [0, 1, 1]
