"""Each term of MKD's objective against the original and against hand-computed numbers."""

import math

import pytest
import torch
from reference import filled
from torch import tensor

from sk_momkd.losses.mkd import (
    coral_loss,
    mkd_terms,
    overlap_loss,
    similarity_loss,
    soft_label_loss,
)
from sk_momkd.models.mkd import MKDOutput
from sk_momkd.training.config import weighted_total

F_P, F_M, F_G = (filled((4, 6), k, 1, torch.float64) for k in (1, 2, 3))
Z_P, Z_M, Z_G = (filled((4, 2), k, 2, torch.float64) for k in (4, 5, 6))
PAIRS = ((F_M, F_P), (F_G, F_P), (F_G, F_M))
WEIGHTS = dict.fromkeys(("ce", "ce_omics", "ce_joint", "skd", "clod", "coral"), 1.0)
WEIGHTS["orthogonality"] = 1 / 6


def value(number):
    return pytest.approx(number, abs=1e-9)


def output():
    return MKDOutput(
        logits=Z_P,
        attention=torch.ones(4, 1),
        batch=torch.arange(4),
        feature=F_P,
        paired=torch.ones(4, dtype=torch.bool),
        omics_logits=Z_G,
        omics_feature=F_G,
        joint_logits=Z_M,
        joint_feature=F_M,
    )


def test_similarity_matches_original():
    assert similarity_loss(F_P, F_M).item() == value(0.2946448561)
    assert similarity_loss(F_P, F_G).item() == value(0.3472431009)


def test_similarity_by_hand_sees_angles_between_bags_only():
    a, c = tensor([[1.0, 0.0], [0.0, 2.0]]), tensor([[3.0, 0.0], [3.0, 0.0]])
    half = math.sqrt(0.5)  # rows (1, 0), (0, 1) against (half, half) twice
    expected = 2 * ((1 - half) ** 2 + half**2) / 4
    assert similarity_loss(a, c).item() == pytest.approx(expected)
    assert similarity_loss(a, a @ tensor([[0.0, 1.0], [-1.0, 0.0]])).item() == 0
    assert similarity_loss(a[:1], c[:1]).item() == 0  # one bag says nothing


@pytest.mark.parametrize(
    ("target", "learner", "number"),
    [
        (Z_M, Z_P, 0.961759805),
        (Z_P, Z_M, 0.960817010),
        (Z_G, Z_P, 0.970356443),
        (Z_P, Z_G, 0.964463072),
    ],
)
def test_soft_labels_match_original(target, learner, number):
    assert soft_label_loss(target, learner, temperature=4.0).mean().item() == value(number)


def test_soft_labels_move_the_learner_and_never_the_target():
    target, learner = Z_M.clone().requires_grad_(), Z_P.clone().requires_grad_()
    soft_label_loss(target, learner, temperature=4.0).sum().backward()
    assert target.grad is None
    assert learner.grad.abs().sum() > 0


def test_overlap_matches_original_and_is_not_the_mean_of_absolute_values():
    numbers = [0.1940458098, 0.3446082617, 0.0121221282]
    assert [overlap_loss(a, c).item() for a, c in PAIRS] == value(numbers)
    wrong = sum((a * c).sum(dim=1).abs().mean() for a, c in PAIRS) / 6
    assert wrong.item() == value(0.4581114002)
    assert sum(numbers) / 6 == value(0.0917960333)
    assert overlap_loss(tensor([[1.0], [1.0]]), tensor([[2.0], [-2.0]])).item() == 0


def test_coral_matches_original():
    numbers = [0.1815334435, 0.2398485022, 0.2068409352]
    assert [coral_loss(a, c).item() for a, c in PAIRS] == value(numbers)


def test_coral_by_hand_divides_covariance_by_one_less_than_the_bags():
    a, c = tensor([[0.0], [2.0]]), tensor([[1.0], [1.0]])  # equal means; variances 2 and 0
    assert coral_loss(a, c).item() == 4.0
    assert coral_loss(a + 3, a).item() == 9.0


def test_terms_and_total_match_original():
    y = tensor([1, 0, 1, 0])
    terms = mkd_terms(output(), y)
    assert terms["skd"].item() == value(2.5675518280)
    assert terms["clod"].mean().item() == value(3.857396330)
    assert mkd_terms(output(), y, temperature=6.0)["clod"].mean().item() == value(3.956018110)
    assert terms["orthogonality"].item() / 6 == value(0.0917960333)
    assert terms["coral"].item() == value(0.6282228809)
    entropies = [terms[name].mean().item() for name in ("ce", "ce_omics", "ce_joint")]
    assert entropies == value([0.4889535460, 1.5048067687, 0.5143777847])
    assert weighted_total(terms, WEIGHTS).item() == value(9.6531051715)
