"""Random chunks and subsamples of bags: sizes, seeds and independence of the other bags."""

import pytest
import torch

from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.patch_subsampling import (
    PatchSubsampling,
    RandomChunks,
    mark_highest,
    mark_highest_in_bags,
)


def batch_of(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n", [1, 3, 4, 7, 13])
def test_chunks_cover_the_bag_in_nearly_equal_parts(n, training):
    shuffles = RandomChunks(4, 3).train(training)(batch_of(n), 1)
    assert len(shuffles) == (1 if training else 3)
    for chunks in shuffles:
        counts = torch.bincount(chunks.of_instance)
        assert len(counts) == len(chunks.bag) == min(4, n)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1


def test_inference_cut_of_a_bag_does_not_depend_on_its_neighbours():
    split = RandomChunks(4, 2).eval()
    for alone, among in zip(split(batch_of(9), 1), split(batch_of(2, 9, 5), 3), strict=True):
        assert torch.equal(among.of_instance[2:11], alone.of_instance + 2)
        assert among.bag.tolist() == [0] * 2 + [1] * 4 + [2] * 4


def test_inference_cuts_differ_by_shuffle_and_by_seed():
    first, second = (chunks.of_instance for chunks in RandomChunks(4, 2).eval()(batch_of(40), 1))
    other = RandomChunks(4, 1, seed=9).eval()(batch_of(40), 1)[0].of_instance
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_training_cut_comes_from_the_generator():
    split, before = RandomChunks(4, 2), torch.get_rng_state()
    cuts = []
    for seed in (0, 0, 1):
        set_dropout_generator(split, torch.Generator().manual_seed(seed))
        cuts.append(split(batch_of(40), 1)[0].of_instance)
    assert torch.equal(cuts[0], cuts[1])
    assert not torch.equal(cuts[0], cuts[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_subsampling_takes_its_share_of_every_bag_in_order():
    subsample = PatchSubsampling(0.8).train()
    subsample.generator = torch.Generator().manual_seed(0)
    batch = torch.arange(3).repeat_interleave(torch.tensor([1, 10, 4]))
    x = torch.arange(15.0).unsqueeze(1)
    drawn, drawn_batch = subsample(x, batch, 3)
    assert torch.bincount(drawn_batch).tolist() == [1, 8, 4]
    assert drawn.squeeze(1).diff().min() > 0
    assert torch.equal(batch[drawn.squeeze(1).long()], drawn_batch)
    again, _ = subsample(x, batch, 3)
    assert not torch.equal(again, drawn)
    assert subsample.eval()(x, batch, 3)[0] is x


def test_mark_highest_marks_a_share_and_at_least_one():
    values = torch.tensor([3.0, -1.0, 2.0, 5.0, 4.0])
    marked = mark_highest_in_bags(values, torch.tensor([0, 0, 1, 1, 1]), 2, 0.7)
    assert marked.tolist() == [True, False, False, True, True]
    assert mark_highest(values.expand(2, 5), 0.01).sum(dim=1).tolist() == [1, 1]
