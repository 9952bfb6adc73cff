"""Reconstruction losses of G-HANet against the original and by hand."""

import pytest
import torch
from reference import filled
from torch import tensor

from sk_momkd.losses.ghanet import ghanet_terms, scaled_cosine_loss, squared_error
from sk_momkd.models.ghanet import GHANetOutput

A, B = (filled((1, 6), k, 1, torch.float64) for k in (1, 2))


def test_scaled_cosine_and_squared_error_match_original():
    assert torch.cosine_similarity(A, B).item() == pytest.approx(0.550430536, abs=1e-7)
    assert scaled_cosine_loss(A, B).item() == pytest.approx(0.090863697, abs=1e-7)
    assert squared_error(A, B).item() == pytest.approx(0.238821670, abs=1e-7)


def test_scaled_cosine_bounds():
    east = tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    other = tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert scaled_cosine_loss(east, other).tolist() == pytest.approx([0.0, 1.0, 8.0])


def test_terms_sum_over_groups_each_by_itself():
    output = GHANetOutput(
        logits=torch.zeros(2, 2),
        attention=torch.ones(2, 2),
        batch=tensor([0, 1]),
        paired=tensor([False, True]),
        omics=tensor([[1.0, 0.0, 2.0]]),
        reconstruction=tensor([[0.0, 1.0, -2.0]]),
        group_sizes=(2, 1),
    )
    terms = ghanet_terms(output, tensor([0, 1]))
    assert terms["sce"].tolist() == pytest.approx([1.0 + 8.0])
    assert terms["mse"].tolist() == pytest.approx([1.0 + 16.0])
    assert terms["ce"].tolist() == pytest.approx([0.6931472, 0.6931472])
