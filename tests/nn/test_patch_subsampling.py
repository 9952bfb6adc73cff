"""Random chunks of bags: sizes, seeds and independence of the neighbours."""

import pytest
import torch

from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.patch_subsampling import RandomSplit


def batch_of(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n", [1, 3, 4, 7, 13])
def test_chunks_cover_the_bag_in_nearly_equal_parts(n, training):
    shuffles = RandomSplit(4, 3).train(training)(batch_of(n), 1)
    assert len(shuffles) == (1 if training else 3)
    for chunks in shuffles:
        counts = torch.bincount(chunks.of_instance)
        assert len(counts) == len(chunks.bag) == min(4, n)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1


def test_inference_cut_of_a_bag_does_not_depend_on_its_neighbours():
    split = RandomSplit(4, 2).eval()
    for alone, among in zip(split(batch_of(9), 1), split(batch_of(2, 9, 5), 3), strict=True):
        assert torch.equal(among.of_instance[2:11], alone.of_instance + 2)
        assert among.bag.tolist() == [0] * 2 + [1] * 4 + [2] * 4


def test_inference_cuts_differ_by_shuffle_and_by_seed():
    first, second = (chunks.of_instance for chunks in RandomSplit(4, 2).eval()(batch_of(40), 1))
    other = RandomSplit(4, 1, seed=9).eval()(batch_of(40), 1)[0].of_instance
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_training_cut_comes_from_the_generator():
    split, before = RandomSplit(4, 2), torch.get_rng_state()
    cuts = []
    for seed in (0, 0, 1):
        set_dropout_generator(split, torch.Generator().manual_seed(seed))
        cuts.append(split(batch_of(40), 1)[0].of_instance)
    assert torch.equal(cuts[0], cuts[1])
    assert not torch.equal(cuts[0], cuts[2])
    assert torch.equal(torch.get_rng_state(), before)
