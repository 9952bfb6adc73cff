"""Features and patches left out of training batches."""

import numpy as np
import torch
from conftest import make_bags

from sk_momkd.training.batches import BagDataset, GraphSpec
from sk_momkd.training.input_dropout import InputDropout


def batch(n=12):
    bags, y = make_bags(n)
    data = BagDataset(bags, y, GraphSpec(), 6)
    return data.batch(range(n))


def drop(full, seed=0, **shares):
    settings = {"input_dropout": 0.0, "instance_dropout": 0.0} | shares
    return InputDropout(**settings, generator=torch.Generator().manual_seed(seed))(full)


def test_dropout_of_nothing_gives_the_batch_itself():
    full = batch()
    assert drop(full) is full


def test_input_dropout_zeroes_its_share_and_keeps_the_mean():
    full = batch(200)
    x = drop(full, input_dropout=0.25).x
    assert abs((x == 0).float().mean() - 0.25) < 0.02
    kept = x != 0
    torch.testing.assert_close(x[kept], full.x[kept] / 0.75)


def test_instance_dropout_keeps_a_patch_of_every_bag_with_edges_between_those_that_stay():
    full = batch()
    for share in (0.3, 0.99):
        part = drop(full, instance_dropout=share)
        assert np.bincount(part.batch.numpy(), minlength=12).min() >= 1
        assert len(part.x) == len(part.batch) == part.edges.n_nodes < len(full.x)
        senders, receivers = part.edges.pairs()
        assert torch.equal(part.batch[senders], part.batch[receivers])
    assert np.bincount(drop(full, instance_dropout=0.99).batch.numpy()).max() <= 2
