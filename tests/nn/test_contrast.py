"""Positives, negatives and the rows of a memory bank."""

import pytest
import torch
from torch import tensor

from sk_momkd.nn.contrast import draw_negatives, nearest_of_class, random_rows, updated_rows

BANK = tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0], [1.0, 0.0]])
LABELS = tensor([0, 0, 0, 0, 1])
ALL = torch.ones(5, dtype=torch.bool)


def test_nearest_is_itself_then_by_cosine_within_the_class():
    rows, similarity = nearest_of_class(BANK, LABELS, tensor([0]), ALL, 3)
    assert rows.tolist() == [[0, 1, 2]]
    assert similarity[0].tolist() == pytest.approx([1.0, 0.8, 0.6])


def test_nearest_opposite_and_foreign_rows_fill_up_with_weight_zero():
    rows, similarity = nearest_of_class(BANK, LABELS, tensor([3, 4]), ALL, 3)
    assert rows[:, 0].tolist() == [3, 4]
    assert similarity.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    more, _ = nearest_of_class(BANK, LABELS, tensor([3]), ALL, 9)
    assert more.shape == (1, 5)


def test_nearest_leaves_rows_out_that_are_no_candidates():
    candidates = tensor([True, False, True, True, True])
    rows, similarity = nearest_of_class(BANK, LABELS, tensor([0]), candidates, 2)
    assert rows.tolist() == [[0, 2]]
    assert similarity[0, 1].item() == pytest.approx(0.6)


@pytest.mark.parametrize("n_negatives", [3, 50])
def test_negatives_are_other_candidates(n_negatives):
    candidates = tensor([True, False, True, True, True, True])
    index = tensor([0, 3, 5])
    drawn = draw_negatives(index, candidates, n_negatives, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, n_negatives)
    for own, row in zip(index.tolist(), drawn.tolist(), strict=True):
        assert set(row) <= {0, 2, 3, 4, 5} - {own}
        if n_negatives == 3:  # enough rows: none twice
            assert len(set(row)) == 3


def test_negatives_single_candidate_has_none():
    assert draw_negatives(tensor([1]), tensor([False, True]), 4, None).shape == (1, 0)


def test_updated_rows_are_new_and_of_length_one():
    bank = tensor([[1.0, 0.0], [0.0, 1.0]])
    new = updated_rows(bank, tensor([0]), tensor([[0.0, 1.0]]), 0.5)
    assert new[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert torch.equal(new[1], bank[1])
    assert bank[0].tolist() == [1.0, 0.0]


def test_updated_rows_same_sample_twice_moves_by_the_mean():
    bank = tensor([[1.0, 0.0]])
    twice = tensor([[0.0, 1.0], [0.0, -1.0]])
    assert updated_rows(bank, tensor([0, 0]), twice, 0.5).tolist() == [[1.0, 0.0]]


def test_random_rows_stay_within_the_bound_of_their_width():
    rows = random_rows(200, 12, torch.Generator().manual_seed(0))
    assert rows.shape == (200, 12)
    assert 0.45 < rows.abs().max().item() <= 0.5
